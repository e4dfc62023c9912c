"""The report: whole without anything from elsewhere, true to the numbers, well formed."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.demo.charts import Line, line_chart, nice_ticks, scatter, score_chart
from data2vec.demo.outcome import Outcome, Point, Score, table
from data2vec.demo.report import page


def outcome(modality: str, method: str, after: float = 0.75) -> Outcome:
    records = [
        {
            "update": 10.0 * n,
            "seconds": float(n),
            "loss": 1 / n,
            "target_var": 0.5,
            "pred_var": 0.1,
            "position_share": 0.2,
        }
        for n in range(1, 9)
    ]
    cloud = [Point(math.sin(n), math.cos(n), f"<class {n % 12}>") for n in range(36)]
    score = Score(0.25, after, 0.02)
    return Outcome(modality, method, records, 123_456, 12, (100, 36), score, score, cloud, cloud, "data2vec probe a b")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = page([outcome("speech", "v1"), outcome("speech", "v2"), outcome("text", "v1")], 4.2)
    assert not re.search(r"https?://|src=|@import|url\(|<script|<link", html)
    assert html.count("<h2>") == 2
    assert "4.2 minutes" in html
    assert "prefers-color-scheme: dark" in html
    assert "<class 1>" not in html and "&lt;class 1&gt;" in html
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        ElementTree.fromstring(drawing)


def test_the_numbers_are_those_of_the_runs() -> None:
    runs = [outcome("images", "v1", after=0.8765)]
    assert "87.6 % ± 2.0" in page(runs, 1) or "87.7 % ± 2.0" in page(runs, 1)
    row = table(runs).splitlines()[-1].split()
    assert row[:2] == ["images", "v1"] and row[2:4] == ["25.0", "%"] and row[-2:] == ["80", "8"]


def test_marks_stand_where_the_scores_are() -> None:
    drawing = ElementTree.fromstring(score_chart([outcome("images", "v1", after=0.75)]))
    before, after = (float(mark.get("cx", "")) for mark in drawing.iter("circle"))
    ticks = {t.text: float(t.get("x", "")) for t in drawing.iter("text") if t.text in ("25", "75")}
    assert (before, after) == pytest.approx((ticks["25"], ticks["75"]), abs=0.1)


def test_a_curve_leaves_out_what_is_not_finite_and_spans_the_axes() -> None:
    drawing = ElementTree.fromstring(line_chart([Line([0, 1, 2], [0.0, math.nan, 4.0], "v1")], floor=0))
    (curve,) = drawing.iter("polyline")
    points = [tuple(map(float, pair.split(","))) for pair in curve.get("points", "").split()]
    assert len(points) == 2
    assert points[1][0] > points[0][0] and points[1][1] < points[0][1]  # to the right, and up


def test_a_cloud_draws_letters_and_dots_of_the_classes_that_have_a_colour() -> None:
    points = [Point(0, 0, "7"), Point(1, 2, "yes"), Point(3, 1, "no")]
    drawing = ElementTree.fromstring(scatter(points, {"7": 0, "yes": 1}))
    assert [mark.text for mark in drawing.iter("text")] == ["7"]
    assert len(list(drawing.iter("circle"))) == 1


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_and_span_the_range(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(abs(low), span, 1)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert ticks == sorted(set(ticks))

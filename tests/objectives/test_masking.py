"""Masks by example: settings and their errors, published figures, and slow plain references of the vectorised parts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from data2vec.errors import UserError
from data2vec.objectives import masking
from data2vec.objectives.masking import (
    BeitBlockMask,
    BlockMask1d,
    BlockMask2d,
    Mask,
    Masker,
    RandomMask,
    Size,
    SpanMask,
    TextMask,
    equalize,
    rng_for,
    with_rate,
)


def draw(masker: Masker, size: Size, number: int = 400) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rng = np.random.default_rng(0)
    return np.stack([masker(rng, size) for _ in range(number)])


def runs(mask: Mask) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [int(run) for run in edges[1::2] - edges[::2]]


# Published figures (algorithms.md 1.6, 2.3)


def test_audio_spans_hide_49_percent_and_never_the_last_frame() -> None:
    masks = draw(SpanMask(prob=0.65, length=10), 500)
    assert abs(masks.mean() - 0.490) < 0.004
    assert not masks[:, -1].any()
    assert min(min(runs(mask)) for mask in masks) == 10  # whole spans


def test_released_text_spans_hide_31_percent() -> None:
    assert abs(draw(TextMask(0.35, 4, random_prob=0, keep_prob=0), 512).mean() - 0.307) < 0.003


def test_bert_split_is_80_10_10() -> None:
    rng = np.random.default_rng(0)
    plans = [TextMask().draw(rng, 512) for _ in range(300)]
    hidden, replaced, kept = (float(np.mean([part.mean() for part in parts])) for parts in zip(*plans, strict=True))
    assert abs(hidden + replaced + kept - 0.15) < 0.001
    np.testing.assert_allclose([hidden, replaced, kept], [0.12, 0.015, 0.015], atol=0.001)


@pytest.mark.parametrize(
    ("masker", "grid", "visible"),
    [
        (BlockMask2d(), (14, 14), 39),
        (BlockMask2d(prob=0.75, adjust=0.1), (14, 14), 49),
        (BlockMask2d(prob=0.75, adjust=0.1), (16, 16), 64),
    ],
)
def test_image_masks_keep_the_published_number_of_patches(
    masker: BlockMask2d, grid: tuple[int, int], visible: int
) -> None:
    assert set((~draw(masker, grid, 50)).sum(axis=1)) == {visible}


def test_beit_counts_fall_short_unless_exact() -> None:
    counts = draw(BeitBlockMask(), (14, 14), 1000).sum(axis=1)
    assert counts.max() == 120
    assert 105 <= counts.min() < 120
    assert counts.mean() > 119
    assert set(draw(BeitBlockMask(exact=True), (14, 14), 100).sum(axis=1)) == {120}


def test_equal_counts_tear_spans() -> None:
    spans = list(draw(SpanMask(), 500, 8))
    torn = equalize(np.random.default_rng(0), spans)
    mean_run = [float(np.mean([run for mask in rows for run in runs(mask)])) for rows in (spans, torn)]
    assert mean_run[0] > 13 > 9 > mean_run[1]
    assert len({int(mask.sum()) for mask in torn}) == 1


# Options


def test_mask_dropout_shows_a_share_of_the_spans_again() -> None:
    whole, holes = (draw(SpanMask(mask_dropout=rate), 500).mean() for rate in (0.0, 0.25))
    assert abs(holes / whole - 0.75) < 0.03


@pytest.mark.parametrize(
    ("lengths", "spread", "deviation"), [("uniform", 0, 20 / 12**0.5), ("normal", 3, 3.0), ("poisson", 0, 10**0.5)]
)
def test_span_lengths_vary_as_asked(lengths: Any, spread: float, deviation: float) -> None:
    masker = SpanMask(prob=0.2, lengths=lengths, spread=spread, no_overlap=True, min_space=1)
    seen = [run for mask in draw(masker, 1000) for run in runs(mask)]
    assert abs(np.mean(seen) - 10) < 0.6
    assert abs(np.std(seen) - deviation) < 0.6


def test_spans_apart_take_every_arrangement_equally_often() -> None:
    rng = np.random.default_rng(0)
    masker = SpanMask(prob=0.5, length=2, min_masks=2, no_overlap=True)
    seen = Counter("".join("01"[int(hidden)] for hidden in masker(rng, 7)) for _ in range(3000))
    expected = {"1101100", "1100110", "1100011", "0110110", "0110011", "0011011"}
    assert set(seen) == expected
    assert all(abs(times - 500) < 5 * 500**0.5 for times in seen.values())


def test_no_span_where_none_is_asked() -> None:
    assert not draw(SpanMask(prob=0.0, min_masks=0), 100, 20).any()
    sparse = draw(SpanMask(prob=0.05, length=10, min_masks=0), 20, 400)  # SpecAugment: int(.1 + U) spans
    assert abs(sparse.any(axis=1).mean() - 0.1) < 0.05


@pytest.mark.parametrize("size", range(2, 12))
def test_clips_shorter_than_a_span_get_half_spans(size: int) -> None:
    masks = draw(SpanMask(prob=0.65, length=10), size, 200)
    assert not masks[:, -1].any()
    assert masks.any(axis=1).all()
    assert masks.mean() <= 0.85


def test_grid_smaller_than_a_block() -> None:
    assert set(draw(BlockMask2d(prob=0.75, length=9), (3, 5), 20).sum(axis=1)) == {12}
    assert set(draw(BeitBlockMask(), (1, 9), 20).sum(axis=1)) == {round(9 * 120 / 196)}


def test_cells_do_not_overlap() -> None:
    masks = draw(BlockMask2d(prob=0.5, adjust=0.0, length=4, inverse=False, non_overlapping=True), (16, 16), 50)
    cells = masks.reshape(-1, 4, 4, 4, 4).sum(axis=(2, 4))
    assert set(np.unique(cells)) == {0, 16}


def test_growing_keeps_one_piece() -> None:
    masker = BlockMask2d(prob=0.5, adjust=0.0, length=12, inverse=False, expand_adjacent=True)
    mask = masking._place_blocks(np.random.default_rng(0), (14, 14), (3, 3), 0.0, 1.0)
    masking._grow(np.random.default_rng(1), mask, 60)
    assert mask.sum() == 60
    assert reachable(mask) == 60
    assert set(draw(masker, (14, 14), 20).sum(axis=1)) == {98}


def reachable(mask: Mask) -> int:
    """How many hidden patches hang together with the first one."""
    todo, seen = [tuple(int(i) for i in np.argwhere(mask)[0])], set()
    while todo:
        y, x = todo.pop()
        if (y, x) in seen or not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]):
            continue
        seen.add((y, x))
        todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return len(seen)


def test_rate_is_drawn_between_prob_min_and_prob() -> None:
    rng = np.random.default_rng(0)
    rates = [with_rate(RandomMask(0.8, prob_min=0.4), rng).prob for _ in range(500)]
    assert 0.4 <= min(rates) < 0.42
    assert 0.78 < max(rates) <= 0.8
    fixed = with_rate(BlockMask1d(prob=0.8, prob_min=0.4), rng)
    assert fixed.prob_min is None
    assert len({int(fixed(rng, 100).sum()) for _ in range(20)}) == 1
    assert with_rate(fixed, rng) is fixed


# Slow plain references


def test_paint_is_the_clipped_union_of_spans() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(1, 40))
        starts, lengths = rng.integers(0, size, 5), rng.integers(0, 12, 5)
        plain = [
            any(start <= t < start + length for start, length in zip(starts, lengths, strict=False))
            for t in range(size)
        ]
        np.testing.assert_array_equal(masking._paint(size, starts, lengths), plain)


@pytest.mark.parametrize(("grid", "block"), [((1, 30), (1, 5)), ((1, 30), (1, 4)), ((7, 5), (3, 3)), ((6, 9), (2, 2))])
def test_blocks_cover_their_centres_and_are_cut_at_the_border(grid: tuple[int, int], block: tuple[int, int]) -> None:
    for seed in range(50):
        blocks = 1 + int(grid[0] * grid[1] * (0.3 / (block[0] * block[1])))
        rate = (blocks + 0.5) * block[0] * block[1] / (grid[0] * grid[1])
        plain = np.zeros(grid, bool)
        for centre in np.random.default_rng(seed).integers(0, grid[0] * grid[1], blocks):
            top, side = centre // grid[1] - block[0] // 2, centre % grid[1] - block[1] // 2
            for y in range(top, top + block[0]):
                for x in range(side, side + block[1]):
                    plain[min(max(y, 0), grid[0] - 1), min(max(x, 0), grid[1] - 1)] = True
        mask = masking._place_blocks(np.random.default_rng(seed), grid, block, rate, 1.0)
        np.testing.assert_array_equal(mask, plain)


# Generators and settings


def test_generators_are_the_same_in_another_process() -> None:
    code = "from data2vec.objectives.masking import rng_for; print(rng_for(1, 2, 3, 4).integers(2**62))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == rng_for(1, 2, 3, 4).integers(2**62)


def test_masking_needs_no_torch() -> None:
    code = "import sys, data2vec.objectives.masking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "masker", [SpanMask(), TextMask(), RandomMask(0.6, 0.3), BlockMask1d(), BlockMask2d(), BeitBlockMask(count=38)]
)
def test_settings_survive_json(masker: Any) -> None:
    assert type(masker)(**json.loads(json.dumps(asdict(masker)))) == masker


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (SpanMask, "prob", 1.5),
        (SpanMask, "prob", float("nan")),
        (SpanMask, "length", 0),
        (SpanMask, "length", 2.5),
        (SpanMask, "min_masks", -1),
        (SpanMask, "starts", "outside"),
        (SpanMask, "lengths", "gamma"),
        (SpanMask, "spread", -1.0),
        (SpanMask, "min_space", -1),
        (SpanMask, "mask_dropout", 1.5),
        (TextMask, "random_prob", -0.1),
        (TextMask, "keep_prob", 1.1),
        (RandomMask, "prob_min", 0.6),
        (BlockMask1d, "adjust", -0.1),
        (BlockMask2d, "length", 0),
        (BlockMask2d, "mask_dropout", 2.0),
        (BeitBlockMask, "count", 0),
        (BeitBlockMask, "min_aspect", 0.0),
        (BeitBlockMask, "attempts", 0),
    ],
)
def test_settings_out_of_range_name_the_field(kind: type, field: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{kind.__name__}\.{field} must be .*not"):
        kind(**{field: value})


def test_some_of_a_selection_must_be_hidden() -> None:
    with pytest.raises(UserError, match=r"TextMask.keep_prob 0.9 must be below 1 together"):
        TextMask(keep_prob=0.9)


def test_uniform_lengths_need_a_range() -> None:
    with pytest.raises(UserError, match="spread must be at most twice the length 4, not 9"):
        SpanMask(length=4, lengths="uniform", spread=9)


@pytest.mark.parametrize("masker", [BlockMask2d(), BeitBlockMask()])
def test_image_masks_ask_for_a_grid(masker: Masker) -> None:
    with pytest.raises(UserError, match=r"needs a grid \(height, width\), got 196"):
        masker(np.random.default_rng(0), 196)


def test_sequence_masks_take_a_grid_as_its_patches() -> None:
    assert RandomMask(0.75)(np.random.default_rng(0), (14, 14)).sum() == 147

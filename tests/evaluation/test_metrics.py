"""Every score against a slow, plain one, or against the library people know."""

import math
import time
import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data2vec.data.labelled.example import Turn
from data2vec.evaluation.metrics import Confusion, multilabel_f1, pearson, pixel_confusion, ranks, spearman
from data2vec.evaluation.spans import exact_match, overlap_f1, span_f1, spans
from data2vec.evaluation.speakers import Diarization, assign, detection_cost, diarization, equal_error_rate
from data2vec.evaluation.transcripts import Edits, edits, error_rate

labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40)
columns = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30)
words = st.lists(st.sampled_from("xyz"), max_size=7)


@given(labels)
def test_classes_as_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, answers = [t for t, _ in pairs], [a for _, a in pairs]
    ours = Confusion.of(truth, answers)
    assert ours.accuracy == pytest.approx(sklearn.accuracy_score(truth, answers))
    assert ours.macro_f1 == pytest.approx(sklearn.f1_score(truth, answers, average="macro"))
    assert ours.matthews == pytest.approx(sklearn.matthews_corrcoef(truth, answers))
    np.testing.assert_allclose(ours.f1, sklearn.f1_score(truth, answers, labels=list(ours.classes), average=None))
    np.testing.assert_array_equal(ours.counts, sklearn.confusion_matrix(truth, answers, labels=list(ours.classes)))
    p, r = (f(truth, answers, labels=list(ours.classes), average=None, zero_division=0)
            for f in (sklearn.precision_score, sklearn.recall_score))  # fmt: skip
    np.testing.assert_allclose(ours.precision, p)
    np.testing.assert_allclose(ours.recall, r)


@given(columns)
def test_correlations_as_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    truth, answers = [t for t, _ in pairs], [a for _, a in pairs]
    np.testing.assert_array_equal(ranks(truth), stats.rankdata(truth))
    if len(set(truth)) == 1 or len(set(answers)) == 1:
        assert math.isnan(pearson(truth, answers))
    else:
        assert pearson(truth, answers) == pytest.approx(stats.pearsonr(truth, answers).statistic, abs=1e-9)
        assert spearman(truth, answers) == pytest.approx(stats.spearmanr(truth, answers).statistic, abs=1e-9)


def test_several_labels_as_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    truth, answers = np.random.default_rng(0).random((2, 20, 4)) > 0.6
    ours = multilabel_f1(truth, answers)
    assert ours["micro_f1"] == pytest.approx(sklearn.f1_score(truth, answers, average="micro"))
    assert ours["macro_f1"] == pytest.approx(sklearn.f1_score(truth, answers, average="macro"))
    assert ours["exact"] == pytest.approx(sklearn.accuracy_score(truth, answers))


def test_overlap_of_pixels() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 3]])
    answer = np.array([[0, 1, 1], [1, 0, 0]])
    confusion = Confusion((0, 1, 2, 3), pixel_confusion(truth, answer, 4))
    sets = [(truth == c) & (truth != 255) for c in range(4)], [(answer == c) & (truth != 255) for c in range(4)]
    plain = [(t & a).sum() / (t | a).sum() if (t | a).any() else math.nan for t, a in zip(*sets, strict=True)]
    np.testing.assert_allclose(confusion.iou, plain)
    assert confusion.mean_iou == pytest.approx(np.nanmean(plain))


def alignment(reference: list[str], answer: list[str]) -> list[tuple[str, int, int]]:
    """The steps of a shortest edit and where they happen, from the whole matrix of costs."""
    rows, columns = len(reference), len(answer)
    cost = [[*range(columns + 1)]]  # of turning i units into j
    for i, unit in enumerate(reference, start=1):
        above, row = cost[-1], [i]
        for j, other in enumerate(answer, start=1):
            row.append(min(above[j - 1] + (unit != other), above[j] + 1, row[-1] + 1))
        cost.append(row)
    steps = []
    i, j = rows, columns
    while i or j:
        differs = bool(i and j and reference[i - 1] != answer[j - 1])
        if i and j and cost[i][j] == cost[i - 1][j - 1] + differs:
            i, j = i - 1, j - 1
            steps.append(("substitution" if differs else "hit", i, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            steps.append(("deletion", i, j))
        else:
            j -= 1
            steps.append(("insertion", i, j))
    return steps[::-1]


def distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Levenshtein as it is defined."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return distance(a[1:], b[1:])
    return 1 + min(distance(a[1:], b), distance(a, b[1:]), distance(a[1:], b[1:]))


@given(words, words)
def test_edits_are_the_fewest_and_lead_from_one_to_the_other(reference: list[str], answer: list[str]) -> None:
    counted = edits(reference, answer)
    assert counted.errors == distance(tuple(reference), tuple(answer))
    assert counted.length == len(reference)
    rebuilt = [answer[j] for kind, _, j in alignment(reference, answer) if kind != "deletion"]
    assert rebuilt == answer


longer = st.lists(st.sampled_from("wxyz"), max_size=40)


@given(longer, longer)
def test_every_kind_of_edit_as_in_the_whole_matrix(reference: list[str], answer: list[str]) -> None:
    kinds = [kind for kind, _, _ in alignment(reference, answer)]
    expected = Edits(*(kinds.count(kind) for kind in ("hit", "substitution", "deletion", "insertion")))
    assert edits(reference, answer) == expected


def test_edits_of_long_texts_need_little_memory_and_time() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh "), 2000)) for _ in range(2)]
    began = time.process_time()
    edits(*texts)
    assert time.process_time() - began < 5  # a tenth of a second, but machines may be busy
    tracemalloc.start()
    edits(*texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # the whole matrix holds 4,000,000 numbers


def test_error_rate_as_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    rng = np.random.default_rng(1)
    texts = [[" ".join(rng.choice(list("abc"), 6)) for _ in range(30)] for _ in range(2)]
    ours = error_rate(*([text.split() for text in side] for side in texts))
    assert ours.rate == pytest.approx(jiwer.wer(*texts))
    assert ours.low < ours.rate < ours.high
    each = np.array([edits(r.split(), a.split()).errors / 6 for r, a in zip(*texts, strict=True)])
    assert ours.high - ours.low == pytest.approx(2 * 1.96 * each.std() / math.sqrt(30), rel=0.15)  # normal theory
    assert math.isnan(error_rate([], []).rate)
    assert error_rate([[]], [["a"]]).edits.insertions == 1


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-P I-P O B-P B-P I-L", [("P", 0, 2), ("P", 3, 4), ("P", 4, 5), ("L", 5, 6)]),
        ("I-P I-P O I-L", [("P", 0, 2), ("L", 3, 4)]),
        ("S-P B-L E-L I-L O", [("P", 0, 1), ("L", 1, 3), ("L", 3, 4)]),
        ("O", []),
        ("", []),
    ],
)
def test_spans_of_tags(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == found


def test_span_f1() -> None:
    truth = [["B-P", "I-P", "O", "B-L"], ["O", "B-L"]]
    answer = [["B-P", "I-P", "O", "B-P"], ["B-L", "B-L"]]
    scores = span_f1(truth, answer)
    assert (scores["P"].precision, scores["P"].recall) == (0.5, 1.0)
    assert scores["L"].f1 == pytest.approx(0.5)
    assert (scores[""].support, scores[""].f1) == (3, pytest.approx(2 * 2 / (3 + 4)))
    assert span_f1([["O"]], [["O"]])[""].f1 == 0.0


def test_answers_as_squad_compares_them() -> None:
    assert exact_match("the Denver Broncos!", ["Denver Broncos", "Broncos"]) == 1
    assert overlap_f1("Denver Broncos team", ["Broncos", "Denver Broncos"]) == pytest.approx(0.8)
    assert overlap_f1("Carolina", ["Broncos"]) == 0
    assert exact_match("", []) == overlap_f1("", []) == 1
    assert overlap_f1("x", []) == 0


def plain_rates(same: list[bool], scores: list[int]) -> list[tuple[float, float]]:
    """Miss and false alarm at every threshold, counted."""
    found = []
    for threshold in [*sorted(set(scores)), max(scores) + 1]:
        missed = sum(t and s < threshold for t, s in zip(same, scores, strict=True)) / sum(same)
        alarm = sum(not t and s >= threshold for t, s in zip(same, scores, strict=True)) / (len(same) - sum(same))
        found.append((missed, alarm))
    return found


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=30))
def test_verification_against_every_threshold(trials: list[tuple[bool, int]]) -> None:
    same, scores = [t for t, _ in trials], [s for _, s in trials]
    assume(any(same) and not all(same))
    rates = plain_rates(same, scores)
    assert detection_cost(same, scores, 0.1) == pytest.approx(min((0.1 * m + 0.9 * a) / 0.1 for m, a in rates))
    crossing = next(i for i, (m, a) in enumerate(rates) if m >= a)
    (m0, a0), (m1, a1) = rates[crossing - 1], rates[crossing]
    share = np.linspace(0, 1, 20_001)
    miss, alarm = m0 + share * (m1 - m0), a0 + share * (a1 - a0)
    assert equal_error_rate(same, scores) == pytest.approx(miss[np.abs(miss - alarm).argmin()], abs=1e-3)


def test_perfect_and_useless_verification() -> None:
    assert equal_error_rate([1, 1, 0], [3, 2, 1]) == 0
    assert equal_error_rate([1, 0, 1, 0], [1, 1, 1, 1]) == 0.5
    assert equal_error_rate([0, 1], [2, 1]) == 1


@given(st.integers(0, 5000), st.integers(1, 4), st.integers(1, 4))
def test_assignment_against_all_permutations(seed: int, rows: int, columns: int) -> None:
    gain = np.random.default_rng(seed).random((rows, columns))
    pairs = assign(gain)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    tall = gain if rows >= columns else gain.T
    best = max(
        sum(tall[i, j] for j, i in enumerate(order)) for order in permutations(range(len(tall)), min(tall.shape))
    )
    assert sum(gain[i, j] for i, j in pairs) == pytest.approx(best)


turns = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 10), st.sampled_from("abc")).map(
        lambda t: Turn(t[0] / 10, (t[0] + t[1]) / 10, t[2])
    ),
    max_size=5,
)


@given(turns, turns, st.sampled_from([0.0, 0.15]), st.booleans())
def test_diarization_against_a_grid_and_every_naming(
    reference: list[Turn], answer: list[Turn], collar: float, skip: bool
) -> None:
    exact = diarization(reference, answer, span=(0.0, 3.5), collar=collar, skip_overlap=skip)
    step = 0.05
    middles = [(i + 0.5) * step for i in range(70)]
    edges = [edge for turn in reference for edge in turn[:2]]
    grid = [
        ({t.label for t in reference if t.start < m < t.end}, {t.label for t in answer if t.start < m < t.end})
        for m in middles
        if not any(abs(m - edge) < collar for edge in edges)
    ]
    grid = [(wanted, got) for wanted, got in grid if not (skip and len(wanted) > 1)]
    worst = Diarization(0, 0, math.inf, 0)
    for naming in product("abc", repeat=3):
        if len(set(naming)) == 3:
            name = dict(zip("abc", naming, strict=True))
            confused = sum(min(len(w), len(g)) - len(w & {name[x] for x in g}) for w, g in grid) * step
            worst = min(worst, Diarization(0, 0, confused, 0), key=lambda d: d.confused)
    assert exact.total == pytest.approx(sum(len(w) for w, _ in grid) * step)
    assert exact.missed == pytest.approx(sum(max(0, len(w) - len(g)) for w, g in grid) * step)
    assert exact.false_alarm == pytest.approx(sum(max(0, len(g) - len(w)) for w, g in grid) * step)
    assert exact.confused == pytest.approx(worst.confused)


def test_diarization_adds_up() -> None:
    one = diarization([Turn(0, 10, "x")], [Turn(0, 5, "y"), Turn(5, 10, "z")])
    assert (one.confused, one.rate) == (5.0, 0.5)
    assert (one + diarization([Turn(0, 10, "x")], [])).rate == pytest.approx(15 / 20)

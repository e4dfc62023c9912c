"""Beam search and alignment against all paths, counted one by one."""

import math
import tracemalloc
from collections import defaultdict
from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.decoding.ctc import Hypothesis, _advance, _Beam, align, beam_search, greedy, log_softmax
from data2vec.errors import UserError

BLANK = 0


def random_scores(seed: int, frames: int, symbols: int = 3) -> np.ndarray:
    return log_softmax(2 * np.random.default_rng(seed).standard_normal((frames, symbols)))


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in groupby(path) if symbol != BLANK)


def all_texts(scores: np.ndarray) -> dict[tuple[int, ...], tuple[float, float]]:
    """Text -> probability of all its paths, and of its best path."""
    texts: dict[tuple[int, ...], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        p = math.exp(sum(scores[t, s] for t, s in enumerate(path)))
        total, best = texts[collapse(path)]
        texts[collapse(path)] = total + p, max(best, p)
    return texts


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_a_wide_beam_finds_the_most_probable_texts_exactly(seed: int, frames: int) -> None:
    scores = random_scores(seed, frames)
    wanted = sorted(all_texts(scores).items(), key=lambda item: -item[1][0])[:3]
    found = beam_search(scores, BLANK, beam=1000, best=3, min_log_prob=-math.inf)
    assert [h.symbols for h in found] == [text for text, _ in wanted]
    np.testing.assert_allclose([h.score for h in found], [math.log(p) for _, (p, _) in wanted], atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_alignment_is_the_best_path_of_every_text(seed: int, frames: int) -> None:
    scores = random_scores(seed, frames)
    for text, (_, best) in all_texts(scores).items():
        aligned = align(scores, text, BLANK)
        assert aligned.symbols == text
        assert aligned.score == pytest.approx(math.log(best))
        ends = [edge for frame in aligned.frames for edge in frame]
        assert ends == sorted(ends)
        assert all(start < stop for start, stop in aligned.frames)


@given(st.integers(0, 10_000), st.integers(0, 12))
def test_greedy_is_the_best_path(seed: int, frames: int) -> None:
    scores = random_scores(seed, frames)
    found = greedy(scores, BLANK)
    assert found.symbols == collapse(tuple(scores.argmax(axis=1)))
    if frames:
        assert found.frames == align(scores, found.symbols, BLANK).frames
        assert found.score == pytest.approx(align(scores, found.symbols, BLANK).score)
    assert all(0 < c <= 1 for c in found.confidences)


def test_beam_search_sums_paths_where_greedy_does_not() -> None:
    scores = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # blank blank: .36, but "1" by three paths: .64
    assert greedy(scores).symbols == ()
    (best,) = beam_search(scores)
    assert best.symbols == (1,)
    assert math.exp(best.score) == pytest.approx(0.64)


def test_a_repeated_letter_needs_a_blank_between() -> None:
    scores = np.log(np.array([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]]))
    assert greedy(scores) == Hypothesis(
        (1, 1), ((0, 1), (2, 3)), pytest.approx((0.9, 0.9)), pytest.approx(3 * math.log(0.9))
    )
    with pytest.raises(UserError, match="needs 3 frames"):
        align(scores[:2], (1, 1))


def test_nothing_to_decode() -> None:
    empty = np.zeros((0, 4))
    assert greedy(empty).symbols == ()
    assert beam_search(empty)[0].symbols == ()
    with pytest.raises(UserError, match="beam=0"):
        beam_search(empty, beam=0)


def whole_texts(scores: np.ndarray, beam: int) -> list[tuple[tuple[int, ...], float]]:
    """The search with whole texts as keys: plain, and slow on long recordings."""
    beams = {(): _Beam(0.0, -math.inf, 0.0, None)}
    for frame in scores:
        grown = _advance(beams, list(enumerate(frame.tolist())), BLANK, None)
        beams = {text: grown[text] for text in sorted(grown, key=lambda text: grown[text].total, reverse=True)[:beam]}
    return [(text, b.total) for text, b in beams.items()]


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 6), st.integers(2, 5))
def test_a_narrow_beam_is_that_over_whole_texts(seed: int, frames: int, beam: int, symbols: int) -> None:
    scores = random_scores(seed, frames, symbols)
    found = beam_search(scores, BLANK, beam=beam, best=beam, min_log_prob=-math.inf)
    wanted = sorted(whole_texts(scores, beam), key=lambda item: -item[1])
    assert [h.symbols for h in found] == [text for text, _ in wanted]
    np.testing.assert_allclose([h.score for h in found], [score for _, score in wanted])
    for hypothesis in found:
        assert all(start < stop for start, stop in hypothesis.frames)
        ends = [edge for frame in hypothesis.frames for edge in frame]
        assert ends == sorted(ends)


def test_long_recordings_take_memory_of_their_length_only() -> None:
    frames, rng = 2000, np.random.default_rng(0)
    path = np.where(np.arange(frames) % 4 == 0, rng.integers(1, 30, frames), BLANK)
    scores = log_softmax(rng.standard_normal((frames, 30)) + 12 * np.eye(30)[path])
    tracemalloc.start()
    (found,) = beam_search(scores, BLANK, beam=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.symbols == collapse(tuple(path)) and len(found.symbols) == 500
    assert found.frames == align(scores, found.symbols, BLANK).frames
    assert peak < 4e6  # frames times symbols are 8e6 in fp64, and as many states twice that

"""CTC search: the best path, the best text (prefix beam search), and where in time a given text lies.

Shapes: T frames, V symbols. Everything is in natural logarithms and fp64, on the CPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data2vec.errors import UserError

Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Hypothesis:
    """A sequence of symbols with its place in time.

    Attributes:
        symbols: (n,) class numbers, no blanks.
        frames: (n,) first frame of each symbol and the one after its last.
        confidences: (n,) mean probability of each symbol over its frames, 0..1.
        score: log-probability; of the path for `greedy` and `align`, of the text (all its paths, plus what a scorer
            adds) for `beam_search`.
    """

    symbols: tuple[int, ...]
    frames: tuple[tuple[int, int], ...]
    confidences: tuple[float, ...]
    score: float


class Scorer(Protocol):
    """What knows about language: added to the acoustic score of every symbol that a text is extended by.

    A state depends on the text only, never on the path, and is never changed.
    """

    def start(self) -> Hashable:
        """State of the empty text."""
        ...

    def extend(self, state: Any, symbol: int) -> tuple[Hashable, float]:
        """State and log-score of one more symbol."""
        ...

    def finish(self, state: Any) -> float:
        """Log-score of ending here."""
        ...


def log_softmax(logits: Scores) -> npt.NDArray[np.float64]:
    """(T, V) scores to log-probabilities."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=1, keepdims=True)
    normal: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return normal


def greedy(log_probs: Scores, blank: int = 0) -> Hypothesis:
    """The most probable path: the best symbol of each frame, repeats merged, blanks removed.

    Args:
        log_probs: (T, V).
        blank: class of the blank.
    """
    if not len(log_probs):
        return Hypothesis((), (), (), 0.0)
    best = log_probs.argmax(axis=1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    stops = np.append(starts[1:], len(best))
    runs = [(int(best[a]), int(a), int(b)) for a, b in zip(starts, stops, strict=True) if best[a] != blank]
    score = float(log_probs.max(axis=1).sum())
    return _hypothesis(log_probs, runs, score)


def _hypothesis(log_probs: Scores, runs: Sequence[tuple[int, int, int]], score: float) -> Hypothesis:
    confidences = tuple(float(np.exp(log_probs[a:b, symbol]).mean()) for symbol, a, b in runs)
    return Hypothesis(tuple(symbol for symbol, _, _ in runs), tuple((a, b) for _, a, b in runs), confidences, score)


class _Beam(NamedTuple):
    """Log-probabilities of a text over the frames so far, by whether its paths end in a blank; scorer's share."""

    blank: float
    symbol: float
    language: float
    state: Any

    @property
    def acoustic(self) -> float:
        return _add(self.blank, self.symbol)

    @property
    def total(self) -> float:
        return self.acoustic + self.language


def beam_search(
    log_probs: Scores,
    blank: int = 0,
    *,
    beam: int = 50,
    scorer: Scorer | None = None,
    best: int = 1,
    min_log_prob: float = -10.0,
) -> list[Hypothesis]:
    """The most probable texts, each summed over all its paths (Hannun et al. 2014, arXiv 1408.2873, algorithm 1).

    Args:
        log_probs: (T, V).
        blank: class of the blank.
        beam: texts kept after each frame.
        scorer: language model or word list.
        best: how many texts to return.
        min_log_prob: symbols less probable than this in a frame are not tried there (the best one always is).

    Returns:
        Up to `best` hypotheses, best first, with the frames of each text's own best path.
    """
    if beam < 1 or best < 1:
        raise UserError(f"beam={beam}, best={best}: both must be at least 1")
    beams: dict[tuple[int, ...], _Beam] = {(): _Beam(0.0, -math.inf, 0.0, scorer.start() if scorer else None)}
    settled: list[int] = []  # what all texts begin with, in none of them but for its last symbol: keys stay short
    lengths: list[tuple[int, int]] = []
    for frame in np.asarray(log_probs, dtype=np.float64):
        tried = np.flatnonzero((frame >= min_log_prob) | (frame == frame.max()))
        grown = _advance(beams, [(int(s), float(frame[s])) for s in tried], blank, scorer)
        kept = sorted(grown, key=lambda text: grown[text].total, reverse=True)[:beam]
        common = _common(kept)[:-1]
        settled += common
        beams = {text[len(common) :]: grown[text] for text in kept}
        lengths.append((len(settled) + min(map(len, beams)), len(settled) + max(map(len, beams))))
    ended = {text: b.total + (scorer.finish(b.state) if scorer else 0.0) for text, b in beams.items()}
    found = []
    for end in sorted(ended, key=lambda text: ended[text], reverse=True)[:best]:
        text = (*settled, *end)
        path = align(log_probs, text, blank, lengths)
        found.append(Hypothesis(text, path.frames, path.confidences, ended[end]))
    return found


def _common(texts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all begin with."""
    low, high = min(texts), max(texts)
    return low[: next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _advance(
    beams: dict[tuple[int, ...], _Beam], frame: list[tuple[int, float]], blank: int, scorer: Scorer | None
) -> dict[tuple[int, ...], _Beam]:
    """One frame further: every text as it is, and by each symbol tried."""
    blanks: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
    symbols: dict[tuple[int, ...], float] = defaultdict(lambda: -math.inf)
    language: dict[tuple[int, ...], tuple[float, Any]] = {}
    for text, old in beams.items():
        for symbol, p in frame:
            if symbol == blank:
                blanks[text] = _add(blanks[text], old.acoustic + p)
                longer = text
            elif text and symbol == text[-1]:
                symbols[text] = _add(symbols[text], old.symbol + p)  # the same symbol goes on
                language[text] = old.language, old.state
                longer = (*text, symbol)  # a second one, which needs a blank in between
                if old.blank == -math.inf:
                    continue
                symbols[longer] = _add(symbols[longer], old.blank + p)
            else:
                longer = (*text, symbol)
                symbols[longer] = _add(symbols[longer], old.acoustic + p)
            if longer == text:
                language[text] = old.language, old.state
            elif longer not in language:
                state, gain = scorer.extend(old.state, symbol) if scorer else (None, 0.0)
                language[longer] = old.language + gain, state
    return {text: _Beam(blanks[text], symbols[text], *language[text]) for text in blanks.keys() | symbols.keys()}


def align(
    log_probs: Scores, symbols: Sequence[int], blank: int = 0, lengths: Sequence[tuple[int, int]] | None = None
) -> Hypothesis:
    """The best path of a given text (Viterbi): where in time its symbols lie.

    Time and memory grow with frames times symbols, or with frames alone where `lengths` are close to each other.

    Args:
        log_probs: (T, V).
        symbols: the text, without blanks.
        blank: class of the blank.
        lengths: (T,) how many of the symbols have begun by the end of each frame, at least and at most; paths that
            leave that are not tried.

    Raises:
        UserError: the text needs more frames than there are.
    """
    needed = len(symbols) + sum(a == b for a, b in pairwise(symbols))
    if needed > len(log_probs):
        raise UserError(f"a text of {len(symbols)} symbols needs {needed} frames, and there are {len(log_probs)}")
    if not symbols:
        return Hypothesis((), (), (), float(log_probs[:, blank].sum()))
    states = np.full(2 * len(symbols) + 1, blank)
    states[1::2] = symbols
    bands = [(max(0, 2 * least - 1), min(len(states), 2 * most + 1)) for least, most in lengths or ()]
    path, score = _viterbi(log_probs, states, bands or [(0, len(states))] * len(log_probs))
    inside = np.flatnonzero(path % 2)
    places = np.arange(len(symbols))
    firsts = inside[np.searchsorted(path[inside] // 2, places)]
    lasts = inside[np.searchsorted(path[inside] // 2, places, side="right") - 1]
    runs = [(int(s), int(first), int(last) + 1) for s, first, last in zip(symbols, firsts, lasts, strict=True)]
    return _hypothesis(log_probs, runs, score)


def _viterbi(
    log_probs: Scores, states: npt.NDArray[np.intp], bands: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.intp], float]:
    """The best way from the first two states to the last two, in each frame through those of its band."""
    skips = np.zeros(len(states), dtype=bool)  # a blank may be left out between two different symbols
    skips[3::2] = states[3::2] != states[1:-2:2]
    first, stop = bands[0]
    total = np.where(np.arange(first, stop) < 2, log_probs[0, states[first:stop]].astype(np.float64), -np.inf)
    steps = [np.zeros(stop - first, dtype=np.int8)]  # by how many states it moved
    for scores, (low, high) in zip(log_probs[1:], bands[1:], strict=True):
        ways = np.full((3, high - low), -np.inf)
        for move, way in enumerate(ways):
            a, b = max(low, first + move), min(high, stop + move)
            way[a - low : max(a, b) - low] = total[a - move - first : max(a, b) - move - first]
        ways[2, ~skips[low:high]] = -np.inf
        steps.append(ways.argmax(axis=0).astype(np.int8))
        total = ways.max(axis=0) + scores[states[low:high]]
        first, stop = low, high
    state = max(range(max(first, len(states) - 2), stop), key=lambda s: (total[s - first], s))
    score = float(total[state - first])
    path = np.empty(len(bands), dtype=np.intp)
    for t in range(len(bands) - 1, -1, -1):
        path[t] = state
        state -= int(steps[t][state - bands[t][0]])
    return path, score


def _add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))

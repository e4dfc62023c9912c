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
    for frame in np.asarray(log_probs, dtype=np.float64):
        tried = np.flatnonzero((frame >= min_log_prob) | (frame == frame.max()))
        grown = _advance(beams, [(int(s), float(frame[s])) for s in tried], blank, scorer)
        kept = sorted(grown, key=lambda text: grown[text].total, reverse=True)[:beam]
        beams = {text: grown[text] for text in kept}
    ended = {text: b.total + (scorer.finish(b.state) if scorer else 0.0) for text, b in beams.items()}
    texts = sorted(ended, key=lambda text: ended[text], reverse=True)[:best]
    found = []
    for text in texts:
        path = align(log_probs, text, blank)
        found.append(Hypothesis(text, path.frames, path.confidences, ended[text]))
    return found


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


def align(log_probs: Scores, symbols: Sequence[int], blank: int = 0) -> Hypothesis:
    """The best path of a given text (Viterbi): where in time its symbols lie.

    Args:
        log_probs: (T, V).
        symbols: the text, without blanks.
        blank: class of the blank.

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
    skips = np.zeros(len(states), dtype=bool)  # a blank may be left out between two different symbols
    skips[3::2] = states[3::2] != states[1:-2:2]
    path, score = _viterbi(np.asarray(log_probs, dtype=np.float64)[:, states], skips)
    runs = []
    for place, symbol in enumerate(symbols):
        frames = np.flatnonzero(path == 2 * place + 1)
        runs.append((int(symbol), int(frames[0]), int(frames[-1]) + 1))
    return _hypothesis(log_probs, runs, score)


def _viterbi(scores: npt.NDArray[np.float64], skips: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], float]:
    """The best way through (T, S) states that starts in one of the first two, ends in one of the last two."""
    frames, states = scores.shape
    total = np.full(states, -np.inf)
    total[:2] = scores[0, :2]
    steps = np.zeros((frames, states), dtype=np.int8)
    for t in range(1, frames):
        ways = np.full((3, states), -np.inf)  # by how many states it moved
        ways[0] = total
        ways[1, 1:] = total[:-1]
        ways[2, 2:] = np.where(skips[2:], total[:-2], -np.inf)
        steps[t] = ways.argmax(axis=0)
        total = ways.max(axis=0) + scores[t]
    state = states - 1 if total[-1] >= total[-2] else states - 2
    score = float(total[state])
    path = np.empty(frames, dtype=np.intp)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= int(steps[t, state])
    return path, score


def _add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))

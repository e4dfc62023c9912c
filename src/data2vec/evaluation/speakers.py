"""Who is it (equal error rate, detection cost) and who speaks when (diarization error rate)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data2vec.data.labelled.example import Turn
from data2vec.evaluation.metrics import Floats, ratio


def error_tradeoff(same: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Misses and false alarms at every threshold: (N + 1,) shares each, from accepting all to accepting none.

    Args:
        same: (trials,) whether both recordings are of one speaker.
        scores: (trials,) the higher, the likelier that they are.
    """
    truth, score = np.asarray(same, dtype=bool), np.asarray(scores, dtype=np.float64)
    assert truth.any() and not truth.all(), "trials of both kinds are needed"
    order = np.argsort(score, kind="stable")
    steps = np.flatnonzero(np.diff(score[order], append=np.inf)) + 1  # equal scores are rejected together
    misses = np.concatenate([[0], truth[order].cumsum()[steps - 1]]) / truth.sum()
    alarms = 1 - np.concatenate([[0], (~truth[order]).cumsum()[steps - 1]]) / (~truth).sum()
    return misses, alarms


def equal_error_rate(same: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Where misses and false alarms are equal, on the lines between the thresholds."""
    misses, alarms = error_tradeoff(same, scores)
    place = int(np.argmax(misses >= alarms))  # never 0: everything accepted has no misses and all false alarms
    gap_before, gap = alarms[place - 1] - misses[place - 1], alarms[place] - misses[place]
    share = gap_before / (gap_before - gap)
    return float(misses[place - 1] + share * (misses[place] - misses[place - 1]))


def detection_cost(same: npt.ArrayLike, scores: npt.ArrayLike, prior: float = 0.01) -> float:
    """Least detection cost (NIST minDCF) over all thresholds; a miss and a false alarm cost alike.

    Args:
        same: see `error_tradeoff`.
        scores: see `error_tradeoff`.
        prior: how probable it is that a trial is of one speaker.
    """
    misses, alarms = error_tradeoff(same, scores)
    return float((prior * misses + (1 - prior) * alarms).min() / min(prior, 1 - prior))


@dataclass(frozen=True)
class Diarization:
    """Seconds of each kind of error.

    Attributes:
        missed: speech that nobody was given.
        false_alarm: speech that there is not.
        confused: speech given to another speaker.
        total: speech of the reference; of two at once, twice.
    """

    missed: float
    false_alarm: float
    confused: float
    total: float

    @property
    def rate(self) -> float:
        """DER: all errors over all speech."""
        return ratio(self.missed + self.false_alarm + self.confused, self.total)

    def __add__(self, other: Diarization) -> Diarization:
        return Diarization(
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confused + other.confused,
            self.total + other.total,
        )


def diarization(
    reference: Sequence[Turn],
    answer: Sequence[Turn],
    *,
    span: tuple[float, float] | None = None,
    gaps: Sequence[tuple[float, float]] = (),
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> Diarization:
    """Errors of one recording, with the assignment of answered to true speakers that makes the fewest.

    As NIST ``md-eval`` and pyannote.metrics count; exact, without a time grid.

    Args:
        reference: true turns.
        answer: answered turns; their names are free.
        span: seconds (from, to) that count; all if None.
        gaps: of them, those that do not.
        collar: seconds round every true start and end that do not count, on each side.
        skip_overlap: leave out where more than one person truly speaks.
    """
    ends = [time for turn in reference for time in turn[:2]]
    holes = [*gaps, *((time - collar, time + collar) for time in ends if collar)]
    pieces = _pieces(reference, answer, span, holes, skip_overlap)
    true = sorted({turn.label for turn in reference})
    given = sorted({turn.label for turn in answer})
    together = np.zeros((len(given), len(true)))
    for length, wanted, got in pieces:
        for name in got:
            together[given.index(name), [true.index(speaker) for speaker in wanted]] += length
    matched = {(given[i], true[j]) for i, j in assign(together)}
    missed = false_alarm = confused = total = 0.0
    for length, wanted, got in pieces:
        right = sum((name, speaker) in matched for name in got for speaker in wanted)
        total += length * len(wanted)
        missed += length * max(0, len(wanted) - len(got))
        false_alarm += length * max(0, len(got) - len(wanted))
        confused += length * (min(len(wanted), len(got)) - right)
    return Diarization(missed, false_alarm, confused, total)


def _pieces(
    reference: Sequence[Turn],
    answer: Sequence[Turn],
    span: tuple[float, float] | None,
    holes: Sequence[tuple[float, float]],
    skip_overlap: bool,
) -> list[tuple[float, frozenset[str], frozenset[str]]]:
    """Stretches that count, in which nobody starts or stops: length, who truly speaks, who was said to."""
    low, high = span or (-math.inf, math.inf)
    cuts = {time for turn in (*reference, *answer) for time in turn[:2]} | {edge for hole in holes for edge in hole}
    cuts |= {time for time in (low, high) if math.isfinite(time)}
    times = sorted(time for time in cuts if low <= time <= high)
    pieces = []
    for start, stop in pairwise(times):
        middle = (start + stop) / 2
        if any(a < middle < b for a, b in holes):
            continue
        wanted = frozenset(turn.label for turn in reference if turn.start < middle < turn.end)
        got = frozenset(turn.label for turn in answer if turn.start < middle < turn.end)
        if (wanted or got) and not (skip_overlap and len(wanted) > 1):
            pieces.append((stop - start, wanted, got))
    return pieces


def assign(gain: Floats) -> list[tuple[int, int]]:
    """Pairs (row, column), each used once, of the largest total gain (exact; for up to a dozen or so columns)."""
    rows, columns = gain.shape
    if columns > rows:
        return [(i, j) for j, i in assign(gain.T)]

    @cache
    def best(row: int, used: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if row == rows:
            return 0.0, ()
        found = best(row + 1, used)
        for column in range(columns):
            if not used >> column & 1:
                value, pairs = best(row + 1, used | 1 << column)
                found = max(found, (value + float(gain[row, column]), ((row, column), *pairs)), key=lambda way: way[0])
        return found

    return list(best(0, 0)[1])

"""Word, character and phone error rates, with a confidence interval over recordings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data2vec.evaluation.metrics import ratio


class Edits(NamedTuple):
    """What turns a reference into an answer."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        """All that is not a hit."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions


@dataclass(frozen=True)
class ErrorRate:
    """Errors over the length of all references.

    Attributes:
        rate: may exceed 1; nan for no reference at all.
        low: lower end of the 95 % confidence interval.
        high: upper end.
        edits: of all recordings together.
    """

    rate: float
    low: float
    high: float
    edits: Edits


def edits(reference: Sequence[Hashable], answer: Sequence[Hashable]) -> Edits:
    """Count the steps of a shortest edit (Levenshtein), in memory linear in the lengths.

    Of several shortest ones, that whose last steps are hits or substitutions before deletions before insertions.
    """
    known: dict[Hashable, int] = {}
    x, y = (np.array([known.setdefault(unit, len(known)) for unit in side]) for side in (reference, answer))
    rows, columns, backwards = len(x), len(y), y[::-1]
    # By rows i of three anti-diagonals i + j: the cost of turning i units into j, and the deletions among it.
    (cost2, deleted2), (cost1, deleted1), (cost, deleted) = np.zeros((3, 2, rows + 1), dtype=np.int32)
    for place in range(1, rows + columns + 1):
        first, stop = max(1, place - columns), min(rows + 1, place)
        here, above = slice(first, stop), slice(first - 1, stop - 1)
        differs = x[above] != backwards[columns - place + first : columns - place + stop]
        through, deletion, insertion = cost2[above] + differs, cost1[above] + 1, cost1[here] + 1
        least = cost[here] = np.minimum(np.minimum(through, deletion), insertion)
        beside = np.where(deletion == least, deleted1[above] + 1, deleted1[here])
        deleted[here] = np.where(through == least, deleted2[above], beside)
        cost[0], deleted[0] = place, 0
        if place <= rows:
            cost[place] = deleted[place] = place
        cost2, deleted2, cost1, deleted1, cost, deleted = cost1, deleted1, cost, deleted, cost2, deleted2
    deletions, errors = int(deleted1[rows]), int(cost1[rows])
    insertions = deletions + columns - rows
    substitutions = errors - deletions - insertions
    return Edits(rows - deletions - substitutions, substitutions, deletions, insertions)


def error_rate(
    references: Sequence[Sequence[Hashable]], answers: Sequence[Sequence[Hashable]], *, draws: int = 1000, seed: int = 0
) -> ErrorRate:
    """Edits over reference lengths, with a percentile bootstrap over recordings (Bisani & Ney 2004).

    Args:
        references: for each recording its words, characters or phones.
        answers: what was recognised.
        draws: bootstrap samples.
        seed: of those.
    """
    assert len(references) == len(answers)
    each = [edits(reference, answer) for reference, answer in zip(references, answers, strict=True)]
    total = Edits(*(sum(column) for column in zip(*each, strict=True))) if each else Edits(0, 0, 0, 0)
    rate = ratio(total.errors, total.length)
    errors, lengths = np.array([e.errors for e in each]), np.array([e.length for e in each])
    if not total.length:
        return ErrorRate(rate, rate, rate, total)
    chosen = np.random.default_rng(seed).integers(len(each), size=(draws, len(each)))
    rates = errors[chosen].sum(axis=1) / np.maximum(lengths[chosen].sum(axis=1), 1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return ErrorRate(rate, float(low), float(high), total)

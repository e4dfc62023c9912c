"""Word, character and phone error rates, with a confidence interval over recordings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from data2vec.evaluation.metrics import ratio

Step = Literal["hit", "substitution", "deletion", "insertion"]


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


def alignment(reference: Sequence[Hashable], answer: Sequence[Hashable]) -> list[tuple[Step, int, int]]:
    """The steps of a shortest edit (Levenshtein), with the places in both sequences where each happens."""
    rows, columns = len(reference), len(answer)
    cost = [[*range(columns + 1)]]  # of turning i units into j
    for i, unit in enumerate(reference, start=1):
        above, row = cost[-1], [i]
        for j, other in enumerate(answer, start=1):
            row.append(min(above[j - 1] + (unit != other), above[j] + 1, row[-1] + 1))
        cost.append(row)
    steps: list[tuple[Step, int, int]] = []
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


def edits(reference: Sequence[Hashable], answer: Sequence[Hashable]) -> Edits:
    """Count the steps of `alignment`."""
    kinds = [kind for kind, _, _ in alignment(reference, answer)]
    return Edits(*(kinds.count(kind) for kind in ("hit", "substitution", "deletion", "insertion")))


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

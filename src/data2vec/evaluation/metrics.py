"""Scores of classes and of values, from one confusion matrix or two columns of numbers. numpy only.

A score that is undefined (no examples of a class, no variance) is nan, except where its convention gives it a value.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for which.

    Attributes:
        classes: (C,) names, in order.
        counts: (C, C): rows are what is true, columns what was answered.
    """

    classes: tuple[Any, ...]
    counts: Counts

    @classmethod
    def of(
        cls, truth: Sequence[Hashable], answers: Sequence[Hashable], classes: Sequence[Hashable] | None = None
    ) -> Confusion:
        """Count pairs; `classes` are all that occur, sorted, if None."""
        assert len(truth) == len(answers), f"{len(answers)} answers for {len(truth)} examples"
        names = tuple(classes) if classes is not None else tuple(sorted({*truth, *answers}, key=str))
        place = {name: i for i, name in enumerate(names)}
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(counts, ([place[t] for t in truth], [place[a] for a in answers]), 1)
        return cls(names, counts)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return ratio(self.counts.trace(), self.counts.sum())

    @property
    def precision(self) -> Floats:
        """(C,) share of a class's answers that are right; 0 where it was never answered."""
        return _shares(self.counts.diagonal(), self.counts.sum(axis=0))

    @property
    def recall(self) -> Floats:
        """(C,) share of a class's examples that were found; 0 where it has none."""
        return _shares(self.counts.diagonal(), self.counts.sum(axis=1))

    @property
    def f1(self) -> Floats:
        """(C,) harmonic mean of precision and recall; 0 where both are."""
        return _shares(2 * self.counts.diagonal(), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        occurs = self.counts.sum(axis=0) + self.counts.sum(axis=1) > 0
        return float(self.f1[occurs].mean()) if occurs.any() else math.nan

    @property
    def matthews(self) -> float:
        """Matthews correlation of any number of classes (Gorodkin 2004); 0 where one side is constant."""
        counts = self.counts.astype(np.float64)
        true, answered, n = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
        covariance = counts.trace() * n - true @ answered
        spread = (n**2 - answered @ answered) * (n**2 - true @ true)
        return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0

    @property
    def iou(self) -> Floats:
        """(C,) intersection over union of each class; nan where it neither occurs nor was answered."""
        hits = self.counts.diagonal()
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits
        shares: Floats = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        return shares

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that have one."""
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if len(known) else math.nan


def pixel_confusion(truth: npt.NDArray[Any], answers: npt.NDArray[Any], classes: int, ignored: int = 255) -> Counts:
    """(C, C) counts of two label maps of one shape, without pixels whose truth is `ignored`."""
    assert truth.shape == answers.shape
    keep = truth != ignored
    pairs = truth[keep].astype(np.int64) * classes + answers[keep].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def multilabel_f1(truth: npt.NDArray[np.bool_], answers: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Micro and macro F1 of (N, C) yes-or-no answers, and the share of rows that are right as a whole."""
    hits = (truth & answers).sum(axis=0)
    both = truth.sum(axis=0) + answers.sum(axis=0)
    known = both > 0
    return {
        "micro_f1": ratio(2 * hits.sum(), both.sum()),
        "macro_f1": float((2 * hits[known] / both[known]).mean()) if known.any() else math.nan,
        "exact": float((truth == answers).all(axis=1).mean()) if len(truth) else math.nan,
    }


def pearson(truth: npt.ArrayLike, answers: npt.ArrayLike) -> float:
    """Linear correlation; nan where one side is constant."""
    x, y = (np.asarray(side, dtype=np.float64) for side in (truth, answers))
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else math.nan


def spearman(truth: npt.ArrayLike, answers: npt.ArrayLike) -> float:
    """Correlation of ranks; equal values share their mean rank."""
    return pearson(ranks(truth), ranks(answers))


def ranks(values: npt.ArrayLike) -> Floats:
    """(N,) place of each value in order, from 1."""
    _, group, sizes = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = sizes.cumsum()
    mean: Floats = (last - (sizes - 1) / 2)[group]
    return mean


def ratio(part: float, whole: float) -> float:
    """`part` / `whole`; nan of nothing."""
    return float(part) / float(whole) if whole else math.nan


def _shares(part: Counts, whole: Counts) -> Floats:
    shares: Floats = np.where(whole > 0, part / np.maximum(whole, 1), 0.0)
    return shares

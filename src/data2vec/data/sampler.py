"""The order of training: seeded, resumable global batches of samples of like length, within a budget.

The batches are those of the whole run, not of a process: who computes which rows is decided afterwards, by `split`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data2vec.data.seeds import Stream, generator
from data2vec.errors import UserError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step, over all processes.

    Attributes:
        epoch: from 0.
        position: the batch's place in its epoch.
        indices: (n,) sample ids.
        crop: length to which every row is cut, in the unit of the sizes; None where nothing is cut.
    """

    epoch: int
    position: int
    indices: Ints
    crop: int | None = None


class BucketSampler:
    """Draws each epoch's global batches: every sample once, lengths alike within a batch, batches in random order.

    As in fairseq (`batch_by_size` over shuffled, then length-sorted ids), with two changes: lengths within
    `bucket_ratio` count as equal, so that a batch's company changes from epoch to epoch, and the rows left over at an
    epoch's end share evenly with the batch before them instead of making a tiny one.

    Args:
        sizes: epoch -> (samples,) length of each sample; constant 1 for images.
        budget: rows x longest row of a batch never exceed it.
        seed: of the order.
        crop: (shortest, longest) crop. A batch's crop is uniform in between, but no longer than the batch's shortest
            sample; None: samples are never cut.
        bucket_ratio: see above; 0 sorts exactly.
        drop_last: leave out the last rows where they fill no batch.
    """

    def __init__(
        self,
        sizes: Callable[[int], Ints],
        budget: int,
        *,
        seed: int = 1,
        crop: tuple[int, int] | None = None,
        bucket_ratio: float = 0.05,
        drop_last: bool = False,
    ) -> None:
        self.sizes = sizes
        self.budget = budget
        self.seed = seed
        self.crop = crop
        self.bucket_ratio = bucket_ratio
        self.drop_last = drop_last
        self._drawn: tuple[int, list[GlobalBatch]] | None = None

    def batches(self, epoch: int) -> list[GlobalBatch]:
        """All global batches of an epoch, in order.

        Raises:
            UserError: one sample alone exceeds the budget, or there are no samples.
        """
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(epoch)
        return self._drawn[1]

    def iterate(self, epoch: int = 0, position: int = 0) -> Iterator[GlobalBatch]:
        """Global batches without end, from `position` of `epoch` on."""
        while True:
            yield from self.batches(epoch)[position:]
            epoch, position = epoch + 1, 0

    def _draw(self, epoch: int) -> list[GlobalBatch]:
        rng = generator(Stream.ORDER, self.seed, epoch)
        lengths = np.asarray(self.sizes(epoch), dtype=np.int64)
        if self.crop is not None:
            lengths = np.minimum(lengths, self.crop[1])
        if not len(lengths):
            raise UserError("there are no samples to train on")
        if lengths.max() > self.budget:
            raise UserError(f"the batch size of {self.budget} is smaller than one sample of {lengths.max()}: raise it")
        order = rng.permutation(len(lengths))
        order = order[np.argsort(-_buckets(lengths[order], self.bucket_ratio), kind="stable")]
        groups = _group(order, lengths, self.budget, self.drop_last)
        drawn = []
        for position, group in enumerate(rng.permutation(len(groups))):
            crop = None
            if self.crop is not None:
                crop = min(int(rng.integers(self.crop[0], self.crop[1] + 1)), int(lengths[groups[group]].min()))
            drawn.append(GlobalBatch(epoch, position, groups[group], crop))
        return drawn


def _buckets(lengths: Ints, ratio: float) -> Ints:
    """A key that grows with length and is equal for lengths in one bucket."""
    if ratio == 0:
        return lengths
    keys: Ints = (np.log(np.maximum(lengths, 1)) / np.log1p(ratio)).astype(np.int64)
    return keys


def _group(order: Ints, lengths: Ints, budget: int, drop_last: bool) -> list[Ints]:
    """Cut `order` into runs of as many rows as the budget allows at the run's longest."""
    ordered = lengths[order]
    cuts = [0]
    while cuts[-1] < len(order):
        start = cuts[-1]
        rows = max(1, budget // max(1, int(ordered[start])))
        rows = max(1, budget // max(1, int(ordered[start : start + rows].max())))
        cuts.append(start + rows)
    full = cuts[-1] == len(order)
    cuts[-1] = len(order)
    if not full and len(cuts) > 2:
        if drop_last:
            cuts.pop()
        else:  # share evenly, as far as the budget lets the last batch grow
            middle = (cuts[-3] + cuts[-1] + 1) // 2
            most = budget // max(1, int(ordered[cuts[-3] :].max()))
            cuts[-2] = min(cuts[-2], max(middle, cuts[-1] - most))
    return [order[start:stop] for start, stop in pairwise(cuts)]


def split(indices: Ints, rank: int = 0, world: int = 1, accumulate: int = 1) -> list[Ints]:
    """The micro-batches of one process: every `world`-th row, in `accumulate` nearly equal parts.

    All ranks get the same number of parts, fewer than `accumulate` where rows are few, none of them empty.

    Raises:
        UserError: the batch has fewer rows than there are processes.
    """
    if len(indices) < world:
        raise UserError(f"a batch of {len(indices)} rows cannot be shared by {world} processes: raise the batch size")
    parts = min(accumulate, len(indices) // world)
    mine = indices[rank::world]
    return [mine[part::parts] for part in range(parts)]

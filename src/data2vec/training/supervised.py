"""Supervised training: one task for every head, and labelled examples as the loader takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from data2vec.data.audio import Sample
from data2vec.data.collate import Row
from data2vec.data.labelled.augment import cutmix, mixup, smooth
from data2vec.data.sampler import Ints
from data2vec.data.seeds import Stream, generator
from data2vec.objectives.task import Batch, TaskOutput
from data2vec.tasks.config import AugmentConfig
from data2vec.tasks.run import inputs_of
from data2vec.tasks.task import Downstream, Item, collate


class SupervisedTask(nn.Module):
    """A head and its encoder, trained on labels.

    Args:
        downstream: gives model and loss.
        freeze_updates: the encoder stays as it is for so many updates, and only the head learns (fairseq
            ``freeze_finetune_updates``).
        soft: labels are distributions over classes, which the head's own loss does not read.
    """

    def __init__(self, downstream: Downstream, *, freeze_updates: int = 0, soft: bool = False) -> None:
        super().__init__()
        self.downstream = downstream
        self.model: nn.Module = downstream.model
        self.freeze_updates, self.soft = freeze_updates, soft or downstream.own_loss
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        if freeze_updates:
            base: nn.Module = downstream.model.base_model
            base.register_forward_pre_hook(self._close)
            base.register_forward_hook(self._reopen, always_call=True)
        self._open = True

    def forward(self, batch: Batch) -> TaskOutput:
        """Loss of a batch."""
        output = self.model(**(inputs_of(batch) if self.soft else dict(batch)))
        loss, count = self.downstream.loss(output, batch)
        return TaskOutput(loss, count)

    def after_step(self, update: int) -> dict[str, float]:
        """Count updates, for `freeze_updates`."""
        assert isinstance(self.updates, Tensor)
        self.updates.fill_(update)
        return {}

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Nothing beside the loss."""
        return {}

    def _close(self, *_: Any) -> None:
        assert isinstance(self.updates, Tensor)
        self._open = torch.is_grad_enabled()
        if int(self.updates) < self.freeze_updates:
            torch.set_grad_enabled(False)

    def _reopen(self, *_: Any) -> None:
        torch.set_grad_enabled(self._open)


class LabelledSamples:
    """Rows of a downstream task as `data2vec.data.loader.Samples`, augmented by (seed, epoch, row).

    Args:
        task: encodes rows.
        items: rows to train on.
        augment: what is done to them.
        seed: of all draws.
    """

    def __init__(self, task: Downstream, items: Sequence[Item], augment: AugmentConfig, seed: int) -> None:
        self.task, self.items, self.augment, self.seed = task, list(items), augment, seed
        self._sizes = np.array([item.size for item in items], dtype=np.int64)
        self._shares = _balanced(items) if augment.balanced else None
        self._drawn: tuple[int, Ints] | None = None

    def sizes(self, epoch: int) -> Ints:
        """(rows,) cost of each row of an epoch."""
        return self._sizes[self._rows(epoch)]

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """One row; raises `BadSample`."""
        item = self.items[self._rows(epoch)[index]]
        rng = generator(Stream.AUGMENT, self.seed, epoch, index)
        sample = self.task.encode(item, rng, self.augment)
        if (self.augment.mixup or self.augment.cutmix) and rng.random() < self.augment.mix_prob:
            sample = self._mix(sample, rng)
        if self.augment.smoothing:
            sample["labels"] = smooth(sample["labels"], self.augment.smoothing)
        return sample

    def _rows(self, epoch: int) -> Ints:
        """The items of an epoch: all of them, or as many with classes in balance."""
        if self._drawn is None or self._drawn[0] != epoch:
            rows: Ints = np.arange(len(self.items), dtype=np.int64)
            if self._shares is not None:
                rows = generator(Stream.ORDER, self.seed, epoch, 0, 1).choice(len(rows), len(rows), p=self._shares)
            self._drawn = epoch, rows
        return self._drawn[1]

    def _mix(self, sample: Sample, rng: np.random.Generator) -> Sample:
        other = self.task.encode(self.items[int(rng.integers(len(self.items)))], rng, self.augment)
        cut = self.augment.cutmix and (not self.augment.mixup or rng.random() < 0.5)
        alpha = self.augment.cutmix if cut else self.augment.mixup
        share = float(rng.beta(alpha, alpha))
        return cutmix(sample, other, share, rng) if cut else mixup(sample, other, share)


def _balanced(items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """(items,) probabilities that draw every class equally often."""
    labels = np.array([str(item.example.target) for item in items])
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares: npt.NDArray[np.float64] = 1 / (counts[group] * len(counts))
    return shares


class LabelledCollator:
    """Rows to a batch, as `data2vec.data.loader.Loader` calls it."""

    def __init__(self, fills: Mapping[str, float]) -> None:
        self.fills = fills

    def __call__(self, rows: Sequence[Row], epoch: int = 0, position: int = 0) -> dict[str, Tensor]:
        """Stack or pad the arrays of the rows."""
        return collate([row.arrays for row in rows], self.fills)

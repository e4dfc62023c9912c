"""What the trainer asks of a method: sums and counts, so that any world size and accumulation agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

Batch = Mapping[str, Tensor]


@dataclass
class TaskOutput:
    """One micro-batch's contribution.

    Attributes:
        loss_sum: () fp32, the loss summed over `count` terms, with its graph.
        count: () fp32, how many terms (masked tokens, sequences ...) were summed; may be 0.
        sums: additive statistics without graph, each of any shape; added over micro-batches
            and ranks before `Task.summarize` reads them. The keys and shapes are the same in every batch.
    """

    loss_sum: Tensor
    count: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A method the trainer can train; always an ``nn.Module`` too, so that DDP wraps it whole.

    Parameters that need gradients are trained; everything in ``state_dict()`` is checkpointed.
    """

    def __call__(self, batch: Batch) -> TaskOutput:
        """Loss and statistics of one micro-batch."""
        ...

    def after_step(self, update: int) -> Mapping[str, float]:
        """Called after optimizer step number `update` (1, 2, ...): the EMA. Returns values for the log.

        A step that was skipped (loss or gradient not finite, nothing to predict) does not count and does not call.
        """
        ...

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn added-up `sums` into the numbers that the log shows."""
        ...

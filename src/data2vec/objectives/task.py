"""What the trainer asks of a method: sums and counts, so that any world size and accumulation agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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


class BatchStream(Protocol):
    """Where the trainer's batches come from: this rank's share of each global batch, as micro-batches.

    An iteration may end (an epoch) or not; the trainer then starts the next one. Every rank yields equally often, and
    at least one micro-batch an update (of count 0 if need be). Nothing here may draw from the global random generators,
    which are the model's (a `DataLoader` draws a seed from them unless it is given a ``generator``).
    """

    def __iter__(self) -> Iterator[Sequence[Batch]]:
        """Micro-batches of one update after the other, from the place that `load_state_dict` set."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The place after the update that was yielded last (not after what was read ahead); JSON values only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from this place at the next ``iter()``."""
        ...

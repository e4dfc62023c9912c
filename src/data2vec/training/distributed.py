"""Processes of one run: who am I, sums over all of us, and a clean end. Launched by torchrun, or alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data2vec.nn.device import choose_device
from data2vec.objectives.task import Batch, Task, TaskOutput


@dataclass(frozen=True)
class World:
    """This process among those of the run.

    Attributes:
        device: where this process computes.
        rank: 0 ... size - 1; rank 0 logs and names what is saved.
        size: number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for every process."""
        if self.size > 1:
            dist.barrier()

    def broadcast(self, value: float) -> float:
        """Rank 0's number."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, src=0)
        return float(tensor)

    def all_reduce(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over all ranks, float64 (float32 on MPS, which lacks it), in one message whatever their number.

        Args:
            sums: the same keys and shapes on every rank.
        """
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        flat = torch.cat([value.detach().to(self.device, wide).reshape(-1) for value in sums.values()])
        if self.size > 1:
            dist.all_reduce(flat)
        parts = torch.split(flat, [value.numel() for value in sums.values()])
        return {name: part.view(value.shape) for (name, value), part in zip(sums.items(), parts, strict=True)}


@contextmanager
def join(device: str = "auto") -> Iterator[World]:
    """Join the run that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK), or be alone.

    NCCL on GPUs, gloo on CPUs. On a clean end every rank waits for the others before it leaves, so that none loses its
    connection in mid-message; on an error it leaves at once and torchrun stops the others.

    Raises:
        UserError: see `choose_device`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    yield World(place, dist.get_rank(), size)
    dist.barrier()
    dist.destroy_process_group()


class _Anchored(nn.Module):
    """A task whose loss always has a graph: DDP waits for ever for a rank that had nothing to learn from.

    Where parameters may be unused, a parameter of its own is the anchor: one of the task's would get a zero gradient,
    and with it weight decay, in an update that left it out on every rank.
    """

    def __init__(self, task: Task, find_unused_parameters: bool, device: torch.device) -> None:
        super().__init__()
        assert isinstance(task, nn.Module)
        self.task = task
        if find_unused_parameters:
            self.anchor = nn.Parameter(torch.zeros((), device=device))
        self._anchors = [self.anchor] if find_unused_parameters else [p for p in task.parameters() if p.requires_grad]

    def forward(self, batch: Batch) -> TaskOutput:
        output: TaskOutput = self.task(batch)
        if not output.loss_sum.requires_grad:
            output.loss_sum = output.loss_sum + sum(0.0 * p.sum() for p in self._anchors)
        return output


def data_parallel(task: Task, world: World, find_unused_parameters: bool) -> nn.Module:
    """The task, wrapped by DDP where there is more than one process. Rank 0's weights count, the teacher's included."""
    assert isinstance(task, nn.Module)
    if world.size == 1:
        return task
    return DistributedDataParallel(
        _Anchored(task, find_unused_parameters, world.device),
        device_ids=[world.device] if world.device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )

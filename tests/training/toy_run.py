"""A task and batches small enough to train in a test, and a command that trains them in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.objectives.task import Batch, TaskOutput
from data2vec.training.config import OptimConfig, TrainConfig
from data2vec.training.distributed import World, join
from data2vec.training.run import RunFolder, open_run
from data2vec.training.trainer import Result, Trainer

ROWS, STEPS, WIDTH = 8, 5, 6


class ToyTask(nn.Module):
    """A student, a teacher that follows it, a loss over the masked places. `spare` takes part in some batches only."""

    def __init__(self, dropout: float = 0.0, tau: float = 0.9) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.student = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, WIDTH))
        self.spare = nn.Parameter(torch.full((WIDTH, 1), 0.5))
        self.teacher = deepcopy(self.student).requires_grad_(False).eval()
        self.tau, self.without_graph = tau, False
        self.calls: list[int] = []

    def train(self, mode: bool = True) -> ToyTask:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> TaskOutput:
        x, mask = batch["x"], batch["mask"]
        if self.without_graph and not mask.any():
            zero = torch.zeros((), device=x.device)
            return TaskOutput(zero, zero, {"y": torch.zeros(WIDTH), "y2": torch.zeros(WIDTH), "n": zero})
        hidden = x.masked_fill(mask[..., None], 0.0) if not batch["use_spare"].any() else x * self.spare.T
        with torch.no_grad():
            y = self.teacher(x)[mask].float()
        loss = nn.functional.mse_loss(self.student(hidden)[mask].float(), y + 0.1 * x[mask], reduction="sum")
        sums = {"y": y.sum(0), "y2": y.square().sum(0), "n": mask.sum()}
        return TaskOutput(loss, mask.sum().float(), sums)

    @torch.no_grad()
    def after_step(self, update: int) -> Mapping[str, float]:
        self.calls.append(update)
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.tau)
        return {"ema_decay": self.tau}

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        variance = sums["y2"] / sums["n"] - (sums["y"] / sums["n"]) ** 2
        return {"target_var": float(variance.mean())}


def global_batch(position: int, kind: str = "") -> dict[str, Tensor]:
    """Rows of one update; `kind` "nan" spoils row 0, "empty" hides nothing, "half" hides nothing in odd rows."""
    generator = torch.Generator().manual_seed(1000 + position)
    x = torch.randn(ROWS, STEPS, WIDTH, generator=generator)
    mask = torch.rand(ROWS, STEPS, generator=generator) < torch.linspace(0.1, 0.9, ROWS)[:, None]
    if kind == "nan":
        x[0], mask[0] = float("nan"), True
    if kind in ("empty", "half"):
        mask[1 if kind == "half" else 0 :: 2] = False
    if kind == "empty":
        mask[:] = False
    return {"x": x, "mask": mask, "use_spare": torch.full((ROWS,), position % 4 == 1)}


class ToyBatches:
    """Every `world`-th row of each global batch, in micro-batches; an epoch is 7 updates."""

    def __init__(
        self,
        world: World | None = None,
        accumulate: int = 1,
        kinds: Mapping[int, str] | None = None,
        crash_at: int = -1,
    ) -> None:
        self.rank, self.size = (world.rank, world.size) if world else (0, 1)
        self.accumulate, self.kinds, self.crash_at = accumulate, kinds or {}, crash_at
        self.position, self.pause = 0, 0.0

    def __iter__(self) -> Iterator[Sequence[Batch]]:
        while True:
            if self.position == self.crash_at:
                raise RuntimeError("crash")
            batch = global_batch(self.position, self.kinds.get(self.position, ""))
            mine = {name: value[self.rank :: self.size].chunk(self.accumulate) for name, value in batch.items()}
            self.position += 1
            time.sleep(self.pause)
            yield [{name: parts[i] for name, parts in mine.items()} for i in range(self.accumulate)]
            if self.position % 7 == 0:
                return

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]


OPTIM = OptimConfig(lr=1e-2, warmup=2, clip_norm=0.5, weight_decay=0.1)


def train(
    out: Path,
    *,
    task: ToyTask | None = None,
    batches: ToyBatches | None = None,
    optim: OptimConfig = OPTIM,
    world: World | None = None,
    resume: bool = False,
    hooks: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Result:
    """One run; `settings` are those of `TrainConfig`."""
    config = TrainConfig(**{"updates": 12, "precision": "fp32", "log_every": 1, **settings})
    world = world or World(torch.device("cpu"))
    if world.first:
        open_run(out, {"optim": optim, "train": config}, resume=resume)
    world.barrier()
    stream = batches or ToyBatches(world)
    trainer = Trainer(task or ToyTask(), stream, optim, config, RunFolder(out), world=world, **(hooks or {}))
    return trainer.fit(resume)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    return {record["update"]: record["loss"] for record in records(out) if "loss" in record}


def main() -> int:
    """Train with pauses, so that a test can kill or signal this process in the middle."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--crash-at", type=int, default=-1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with join("cpu") as world:
            batches = ToyBatches(world, crash_at=arguments.crash_at if world.rank == world.size - 1 else -1)
            batches.pause = arguments.pause
            return train(
                arguments.out, task=ToyTask(dropout=0.3), batches=batches, world=world, **arguments.settings
            ).exit_code
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""What every rank of the test's one process group runs: scenario after scenario, results in the folder given."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch
from toy_run import ToyBatches, ToyTask, train

from data2vec.errors import UserError
from data2vec.training.distributed import World, join


class SignalledOnLastRank(ToyTask):
    """The last rank alone is told to stop, during update 5."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def after_step(self, update: int) -> Mapping[str, float]:
        if update == 5 and self.world.rank == self.world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().after_step(update)


def without_graph() -> ToyTask:
    task = ToyTask()
    task.without_graph = True
    return task


def scenarios(world: World, out: Path) -> None:
    def go(name: str, task: ToyTask | None = None, *, accumulate: int = 1, kinds: Any = None, **settings: Any) -> Any:
        batches = ToyBatches(world, accumulate=accumulate, kinds=kinds)
        return train(out / name, task=task, batches=batches, world=world, **settings)

    other = ToyTask()
    with torch.no_grad():  # rank 0's weights have to win, the teacher's too
        for p in other.parameters():
            p.add_(float(world.rank))
    go("plain", other)
    go("accumulated", accumulate=2)
    go("half", without_graph(), kinds={3: "half", 5: "half"}, accumulate=2)
    go("bad", kinds={3: "nan", 4: "empty"})
    stopped = go("signalled", SignalledOnLastRank(world), save_every=4)
    (out / f"signalled-{world.rank}.json").write_text(json.dumps([stopped.reason, stopped.update]))
    go("signalled", resume=True, save_every=4)
    go("dropout", ToyTask(dropout=0.3), save_every=4)
    for path in sorted((out / "dropout" / "checkpoints").iterdir())[1:]:
        if world.first:
            os.truncate(path / "__1_0.distcp" if (path / "__1_0.distcp").exists() else path / "__0_0.distcp", 10)
    world.barrier()
    if world.first:
        (out / "dropout" / "log.jsonl").rename(out / "dropout-first.jsonl")
    go("dropout", ToyTask(dropout=0.3), save_every=4, resume=True)
    state = torch.rand(1).item()
    (out / f"stream-{world.rank}.json").write_text(json.dumps(state))
    try:
        go("hopeless", kinds=dict.fromkeys(range(2, 99), "nan"), max_bad_steps=3)
    except UserError as error:
        (out / f"hopeless-{world.rank}.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join("cpu") as world:
        scenarios(world, Path(sys.argv[1]))

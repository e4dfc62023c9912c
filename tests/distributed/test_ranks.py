"""Two gloo ranks under torchrun against one process: the same losses, the same decisions, a clean end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy_run
from toy_run import ToyBatches, ToyTask, losses, train

from data2vec.errors import UserError
from data2vec.nn.device import choose_device
from data2vec.training.distributed import World


def torchrun(*command: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, *map(str, command)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every scenario of `ranks.py`, run once by two processes."""
    out = tmp_path_factory.mktemp("ranks")
    done = torchrun(Path(__file__).with_name("ranks.py"), out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("plain", {}), ("accumulated", {}), ("half", {3: "half", 5: "half"}), ("bad", {3: "nan", 4: "empty"})],
)
def test_same_losses_as_one_process(two_ranks: Path, tmp_path: Path, name: str, kinds: dict[int, str]) -> None:
    """Ragged counts, a parameter that some updates leave out, a rank with nothing to predict, a rank with NaN."""
    train(tmp_path, batches=ToyBatches(kinds=kinds))
    ours = losses(two_ranks / name)
    assert len(ours) == 12
    assert ours == pytest.approx(losses(tmp_path), rel=1e-6)


def test_one_rank_is_told_to_stop_and_all_do(two_ranks: Path, tmp_path: Path) -> None:
    ends = [json.loads((two_ranks / f"signalled-{rank}.json").read_text()) for rank in (0, 1)]
    assert ends == [["sigterm", 6], ["sigterm", 6]]
    train(tmp_path)
    assert losses(two_ranks / "signalled") == pytest.approx(losses(tmp_path), rel=1e-6)


def test_resume_of_two_ranks_is_bit_for_bit(two_ranks: Path) -> None:
    """From update 4, the newer checkpoints cut short; each rank has its own dropout."""
    first = [json.loads(line) for line in (two_ranks / "dropout-first.jsonl").read_text().splitlines()]
    again = losses(two_ranks / "dropout")
    assert again == {record["update"]: record["loss"] for record in first if record["update"] > 4}
    streams = [json.loads((two_ranks / f"stream-{rank}.json").read_text()) for rank in (0, 1)]
    assert streams[0] != streams[1]


def test_all_ranks_give_up_together(two_ranks: Path) -> None:
    messages = [(two_ranks / f"hopeless-{rank}.txt").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "stopped after update 2: the loss is nan" in messages[0]


def test_one_process_resumes_what_two_began(two_ranks: Path, tmp_path: Path) -> None:
    checkpoint = sorted((two_ranks / "plain" / "checkpoints").iterdir())[-1]
    task = ToyTask()
    train(two_ranks / "plain", task=task, resume=True)
    alone = ToyTask()
    train(tmp_path, task=alone)
    assert checkpoint.name == "update-00000012"
    torch.testing.assert_close(task.state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-6)


def test_a_crash_of_one_rank_ends_all_with_an_error(tmp_path: Path) -> None:
    done = torchrun(toy_run.__file__, tmp_path / "run", "--crash-at", 3)
    assert done.returncode == 1
    assert "RuntimeError: crash" in done.stderr


def test_sums_travel_in_one_message() -> None:
    world = World(torch.device("cpu"))
    sums = {"a": torch.ones(2, 3), "b": torch.tensor(7), "c": torch.zeros(0)}
    reduced = world.all_reduce(sums)
    assert {name: value.shape for name, value in reduced.items()} == {name: v.shape for name, v in sums.items()}
    assert reduced["b"] == 7
    assert reduced["a"].dtype == torch.float64


def test_unknown_device() -> None:
    with pytest.raises(UserError, match="device = 'gpu'"):
        choose_device("gpu")

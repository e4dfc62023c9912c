"""Checkpoints are whole or absent: cut short, killed, full disk, another model, a hostile file."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run
from toy_run import ToyTask, losses, train

from data2vec.errors import UserError
from data2vec.training.checkpoint import Checkpoints, rng_state, set_rng_state
from data2vec.training.distributed import World
from data2vec.training.run import open_run

CPU = World(torch.device("cpu"))
SETTINGS = {"save_every": 2, "keep_last": 3}


def saved(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "finished"
    train(out, task=ToyTask(dropout=0.3), **SETTINGS)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_keeps_the_last(finished: Path) -> None:
    assert saved(finished) == ["update-00000008", "update-00000010", "update-00000012"]


def truncate(name: str) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size // 2)


@pytest.mark.parametrize(
    "damage",
    [
        truncate("__0_0.distcp"),
        truncate(".metadata"),
        truncate("state.json"),
        lambda path: (path / "rng-0.pt").unlink(),
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "__0_0.distcp").write_bytes(bytes((path / "__0_0.distcp").stat().st_size)),
    ],
    ids=["tensors", "index", "state", "rng", "unsealed", "zeroed"],
)
def test_a_damaged_one_is_named_and_skipped(
    run: Path, finished: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run / "checkpoints" / "update-00000012")
    train(run, task=ToyTask(dropout=0.3), resume=True, **SETTINGS)
    assert "update-00000012 is skipped: " in capsys.readouterr().err
    assert losses(run) == losses(finished)
    assert saved(run) == saved(finished)


def test_none_left_is_one_line(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        truncate("__0_0.distcp")(path)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read .*cut short") as error:
        train(run, resume=True, **SETTINGS)
    assert "\n" not in str(error.value)


def test_another_model_is_refused(run: Path) -> None:
    wider = ToyTask()
    wider.extra = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"another model or optimizer: they differ in optimizer\.extra"):
        train(run, task=wider, resume=True)
    other = ToyTask()
    other.spare = torch.nn.Parameter(torch.zeros(7, 1))
    with pytest.raises(UserError, match="no checkpoint in"):
        train(run, task=other, resume=True)


def test_a_hostile_index_runs_nothing(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "owned"
    for path in (run / "checkpoints").iterdir():
        hostile = b"cos\nsystem\n(S'touch %s'\ntR." % bytes(target)
        (path / ".metadata").write_bytes(hostile)
        state = json.loads((path / "state.json").read_text())
        state["files"][".metadata"] = len(hostile)
        (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"os.system has no place"):
        train(run, resume=True)
    assert not target.exists()


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    """No file may grow past 2 kB: the writers meet a real OSError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    checkpoints = Checkpoints(tmp_path, 1, CPU)
    checkpoints.save(1, {"a": torch.ones(3000)}, {"n": 1})
    request.getfixturevalue("tiny_disk")
    with pytest.raises(UserError, match=r"could not be written .* --resume") as error:
        checkpoints.save(2, {"a": torch.zeros(3000)}, {"n": 2})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["update-00000001"]
    a = torch.zeros(3000)
    assert checkpoints.load({"a": a}, extra="window.") == {"n": 1, "tensors": {}}
    assert a.sum() == 3000


def test_saving_the_same_update_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, CPU)
    for n in (1, 2):
        checkpoints.save(7, {"a": torch.full((2,), float(n)), "window.b": torch.ones(n)}, {"n": n})
    a = torch.zeros(2)
    state = checkpoints.load({"a": a}, extra="window.")
    assert state is not None
    assert (state["n"], a.tolist(), state["tensors"]["window.b"].tolist()) == (2, [2.0, 2.0], [1.0, 1.0])


def test_random_state_returns() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    draw()
    state = rng_state(CPU.device)
    first = draw()
    set_rng_state(state, CPU.device)
    assert draw() == first


def start(out: Path, pause: float = 0.15) -> subprocess.Popen[bytes]:
    command = [sys.executable, toy_run.__file__, str(out), "--pause", str(pause), "--settings", json.dumps(SETTINGS)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the run ended before the signal"
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_killed_in_the_middle_then_resumed(tmp_path: Path, finished: Path, number: int, code: int) -> None:
    process = start(tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "update-00000004" / "state.json", process)
    process.send_signal(number)
    assert process.wait(30) == code
    assert not (tmp_path / "run" / "checkpoints" / "update-00000012").exists()
    train(tmp_path / "run", task=ToyTask(dropout=0.3), resume=True, **SETTINGS)
    assert losses(tmp_path / "run") == losses(finished)
    assert saved(tmp_path / "run") == saved(finished)


def test_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        open_run(tmp_path / "run", {}, resume=True)
    run, changes = open_run(tmp_path / "run", {"seed": 1, "data": {"path": tmp_path}})
    assert json.loads(run.settings.read_text()) == {"seed": 1, "data": {"path": str(tmp_path)}}
    assert changes == []
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        open_run(tmp_path / "run", {})
    _, changes = open_run(tmp_path / "run", {"seed": 2, "data": {"path": tmp_path}}, resume=True)
    assert changes == ["seed: 1 -> 2"]
    run.settings.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        open_run(tmp_path / "run", {}, resume=True)


def test_resume_before_the_first_checkpoint_starts_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(tmp_path / "run", {})
    train(tmp_path / "run", task=ToyTask(), resume=True)
    assert "has no checkpoint yet" in capsys.readouterr().err
    assert len(losses(tmp_path / "run")) == 12


def test_a_failed_export_keeps_the_model(tmp_path: Path) -> None:
    run, _ = open_run(tmp_path / "run", {})
    run.export(lambda folder: (folder / "config.json").write_text("1"))

    def full(folder: Path) -> None:
        (folder / "config.json").write_text("2")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        run.export(full)
    assert (run.model / "config.json").read_text() == "1"
    assert not (tmp_path / "run" / ".model.partial").exists()

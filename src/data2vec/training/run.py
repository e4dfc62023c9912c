"""The run folder: ``run.json`` (resolved settings), ``log.jsonl``, ``checkpoints/``, ``model/``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data2vec.errors import UserError


def replace_folder(fresh: Path, final: Path) -> None:
    """Put `fresh` in the place of `final`; killed in between, one of the two is whole."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.path / "run.json"

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """What `--resume` continues from."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """What `from_pretrained` reads."""
        return self.path / "model"

    def export(self, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder and put it in the place of ``model/``.

        Raises:
            UserError: it cannot be written; the model of before stays.
        """
        fresh = self.path / ".model.partial"
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            write(fresh)
            replace_folder(fresh, self.model)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise UserError(f"{self.model} could not be written ({error}): free space, then --resume") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{name}.{key}".strip("."))]
    return [] if old == new else [f"{name}: {old!r} -> {new!r}"]


def open_run(path: Path, settings: Mapping[str, Any], *, resume: bool = False) -> tuple[RunFolder, list[str]]:
    """Make a run folder, or open one to continue. Rank 0 calls this; the others take ``RunFolder(path)``.

    Args:
        path: the folder.
        settings: everything that decides the run; dataclasses, paths and JSON values.
        resume: continue the run that lies there.

    Returns:
        The folder, and one line for each setting that differs from those the run was started with.

    Raises:
        UserError: a run lies there and `resume` is off, none lies there and it is on, or the folder cannot be written.
    """
    check_run(path, resume)
    run = RunFolder(path)
    text = json.dumps(settings, indent=2, default=_plain) + "\n"
    changes = _differences(read_settings(path), json.loads(text)) if resume else []
    try:
        path.mkdir(parents=True, exist_ok=True)
        partial = run.settings.with_suffix(".partial")
        partial.write_text(text)
        os.replace(partial, run.settings)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
    return run, changes


def check_run(path: Path, resume: bool) -> None:
    """Whether a run can begin (or, with `resume`, continue) in this folder; writes nothing.

    Raises:
        UserError: a run lies there and `resume` is off, or none lies there and it is on.
    """
    run = RunFolder(path)
    if resume:
        read_settings(path)
    elif run.settings.exists() or run.checkpoints.exists():
        raise UserError(f"{path} already holds a run: continue it with --resume, or choose another --out")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of the run in this folder, as `open_run` wrote them.

    Raises:
        UserError: there is no run, or its settings are damaged.
    """
    file = RunFolder(path).settings
    if not file.is_file():
        raise UserError(f"{path} holds no run to resume ({file.name} is missing): leave out --resume")
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): restore it, or choose another --out") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} is not a JSON object: restore it, or choose another --out")
    return settings

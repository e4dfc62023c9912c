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
    run = RunFolder(path)
    text = json.dumps(settings, indent=2, default=_plain) + "\n"
    started = run.settings.exists() or run.checkpoints.exists()
    if started and not resume:
        raise UserError(f"{path} already holds a run: continue it with --resume, or choose another --out")
    if resume and not run.settings.is_file():
        raise UserError(f"{path} holds no run to resume ({run.settings.name} is missing): leave out --resume")
    try:
        before = json.loads(run.settings.read_text()) if resume else {}
        changes = _differences(before, json.loads(text)) if resume else []
        path.mkdir(parents=True, exist_ok=True)
        partial = run.settings.with_suffix(".partial")
        partial.write_text(text)
        os.replace(partial, run.settings)
    except json.JSONDecodeError as error:
        raise UserError(f"{run.settings} is not JSON ({error}): restore it, or choose another --out") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
    return run, changes

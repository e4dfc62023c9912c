"""Checkpoints: written beside and renamed, sealed with their sizes, the newest whole one found again.

A checkpoint is a folder ``update-00001000``: the tensors (task, optimizer, statistics) as one torch distributed
checkpoint, ``rng-<rank>.pt`` for each process, and ``state.json`` (counters, data cursor, all sizes), the last.
"""

from __future__ import annotations

import json
import pickle  # noqa: TID251  # only _Reader, which refuses all but plain descriptions of tensors
import random
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from data2vec.errors import UserError
from data2vec.training.distributed import World
from data2vec.training.run import replace_folder

_STATE = "state.json"


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if name.isidentifier() else None
        harmless = (
            (module.startswith("torch.distributed.checkpoint.") and getattr(found, "__module__", "") == module)
            or (module == "torch" and (found is torch.Size or isinstance(found, torch.dtype)))
            or (module, name) == ("torch.serialization", "_get_layout")
            or (module.startswith("pathlib") and name in ("PosixPath", "WindowsPath", "PurePosixPath"))
        )
        if not harmless:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's index")
        return found


class _Reader(FileSystemReader):
    """torch's reader, whose index is a pickle: ours runs nothing that the index may name."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _Unpickler(file).load()
        assert isinstance(metadata, Metadata)
        return metadata


def rng_state(device: torch.device) -> dict[str, Any]:
    """State of every generator that a training step may draw from."""
    _, keys, place, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.array(keys, dtype=np.int64)), int(place), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_rng_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Undo everything drawn since `rng_state`."""
    random.setstate(state["python"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _line(error: BaseException) -> str:
    """The innermost message of an error, as one line."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())[:200] or type(error).__name__


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: holds one folder a checkpoint; every process sees the same.
        keep: how many of the newest stay.
        world: the processes that save and load together.
        note: told what a user should know, one line at a time.
    """

    def __init__(self, folder: Path, keep: int, world: World, note: Callable[[str], None] = warnings.warn) -> None:
        self.folder, self.keep, self.world, self.note = folder, keep, world, note

    def save(self, update: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `update`, then drop the oldest ones.

        Args:
            update: names the checkpoint.
            tensors: the same names on every rank.
            state: JSON values; rank 0's are written.

        Raises:
            UserError: it cannot be written (disk full ...); what was saved before is untouched.
        """
        final = self.folder / f"update-{update:08d}"
        partial = self.folder / f".{final.name}.partial"
        try:
            if self.world.first:
                for stale in self.folder.glob(".update-*"):
                    shutil.rmtree(stale)
                partial.mkdir(parents=True)
            self.world.barrier()
            torch.save(rng_state(self.world.device), partial / f"rng-{self.world.rank}.pt")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a single process saves alone
                save_tensors(dict(tensors), storage_writer=FileSystemWriter(partial))
            if self.world.first:
                sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
                (partial / _STATE).write_text(json.dumps({**state, "files": sizes}))
                replace_folder(partial, final)
                older = [path for path in self._newest_first() if path.name < final.name]
                for path in older[self.keep - 1 :]:
                    shutil.rmtree(path)
        except (OSError, RuntimeError, CheckpointException) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"checkpoint {final} could not be written ({_line(error)}): what was saved before is intact; "
                "free space on the disk, then continue with --resume"
            ) from error
        return final

    def load(self, tensors: Mapping[str, Tensor], extra: str) -> dict[str, Any] | None:
        """Read the newest whole checkpoint into `tensors`, in place, and set the random state.

        Args:
            tensors: names and places of what was saved.
            extra: begins the names of other tensors that may have been saved.

        Returns:
            The saved ``state``, with ``tensors``: the extra ones. None if there is no checkpoint at all.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        failures = []
        for path in self._newest_first():
            try:
                state = self._read(path, dict(tensors), extra)
            except (OSError, RuntimeError, ValueError, KeyError, CheckpointException, pickle.UnpicklingError) as error:
                failures.append(f"{path.name}: {_line(error)}")
                self.note(f"checkpoint {path} is skipped: {_line(error)}")
                continue
            return state
        if failures:
            raise UserError(
                f"no checkpoint in {self.folder} can be read ({'; '.join(failures)}): start anew with --out"
            )
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("update-*"), reverse=True)

    def _read(self, path: Path, tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
        if not (path / _STATE).is_file():
            raise ValueError(f"it was cut short, {_STATE} is missing")
        state: dict[str, Any] = json.loads((path / _STATE).read_text())
        for name, size in state.pop("files").items():
            found = (path / name).stat().st_size if (path / name).is_file() else 0
            if found != size:
                raise ValueError(f"it was cut short, {name} has {found} of {size} bytes")
        reader = _Reader(path)
        saved = reader.read_metadata().state_dict_metadata
        extra = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in saved.items()
            if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
        }
        if other := sorted(saved.keys() ^ (tensors.keys() | extra.keys())):
            raise ValueError(f"it is of another model or optimizer: they differ in {', '.join(other[:3])} ...")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_tensors({**tensors, **extra}, storage_reader=reader)
        random_state = path / f"rng-{self.world.rank}.pt"
        if random_state.is_file():
            set_rng_state(torch.load(random_state, weights_only=True), self.world.device)
        else:
            self.note(f"{path} knows no random state of rank {self.world.rank}: this process starts a new stream")
        return {**state, "tensors": extra}

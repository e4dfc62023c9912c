"""Weight files: read a folder's tensors, write them, never execute anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data2vec.errors import UserError

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
WEIGHT_FILES = (SAFETENSORS, SAFETENSORS + INDEX, BIN, BIN + INDEX)
WEIGHT_PATTERNS = (*WEIGHT_FILES, "model-*.safetensors", "pytorch_model-*.bin")
PRETRAINING_FILE = "pretraining.safetensors"
"""Beside a model: ``teacher.<name>`` and ``predictor.<name>``, which only pre-training reads."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder by their names on disk, memory-mapped where the format allows.

    Raises:
        UserError: when no weight file is there, one is cut short, or a shard is missing.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_index(folder / name) if name.endswith(INDEX) else read_file(folder / name)
    raise UserError(f"{folder} holds no weights: expected one of {', '.join(WEIGHT_FILES)}")


def read_file(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors or (tensors only, nothing is unpickled beyond them) ``.bin`` file."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (no dict)
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{file} is cut short or no weight file: {_first_line(error)}") from error
    except Exception as error:  # torch.load refuses pickled code with several error types
        raise UserError(f"{file} is refused: it holds more than tensors ({_first_line(error)})") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{file} holds a {type(values).__name__}, not a dict of tensors")
    return {name: tensor for name, tensor in values.items() if isinstance(tensor, Tensor)}


def _read_index(index: Path) -> dict[str, Tensor]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no weight index: {_first_line(error)}") from error
    weights: dict[str, Tensor] = {}
    for name in files:
        file = index.parent / name
        if Path(name).name != name or not file.is_file():
            raise UserError(f"{index} names the shard {name!r}, which is not in {index.parent}: download it again")
        weights.update(read_file(file))
    missing = sorted(set(shards) - set(weights))
    if missing:
        raise UserError(f"{index} lists {missing[0]!r}, but its shard {shards[missing[0]]!r} does not hold it")
    return weights


def write_weights(folder: Path, weights: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """Write ``model.safetensors``, or shards with an index once `max_shard_bytes` is passed.

    Each file is written beside and renamed.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    for old in [*folder.glob("model*.safetensors"), *folder.glob("model*.safetensors.index.json")]:
        old.unlink()
    if len(shards) == 1:
        write_file(folder / SAFETENSORS, shards[0])
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(folder / file, shard)
        index.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True)
    (folder / (SAFETENSORS + INDEX)).write_text(text + "\n", encoding="utf-8")


def write_pretraining(folder: Path, teacher: Mapping[str, Tensor], predictor: Mapping[str, Tensor]) -> None:
    """Write the EMA teacher and the prediction head (decoder) under our names, as `load_checkpoint` reads them."""
    named = {"teacher": teacher, "predictor": predictor}
    tensors = {f"{part}.{name}": tensor for part, own in named.items() for name, tensor in own.items()}
    write_file(folder / PRETRAINING_FILE, {name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def write_file(file: Path, weights: Mapping[str, Tensor]) -> None:
    """One safetensors file, written beside and renamed."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file(dict(weights), beside, metadata={"format": "pt"})
        os.replace(beside, file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} could not be written: {_first_line(error)}") from error
    finally:
        beside.unlink(missing_ok=True)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

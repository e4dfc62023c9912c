"""Safetensors files and sharded folders, read with every claim checked first; files written tensor by tensor."""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.torch_files import read_torch_file

_MAX_HEADER = 100_000_000  # the format's own limit
_MAX_INDEX = 64 << 20
_ABSENT, _PRESENT_FILE = 0b000, 0b101  # bits 63 present, 62 swapped, 61 of a file: admin-guide/mm/pagemap.rst
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
# The order of dtypes in a file written by the safetensors library: larger alignment first.
_ORDER = ["I64", "F64", "I32", "F32", "BF16", "F16", "I16", "I8", "U8", "BOOL"]
# What a folder may hold, first found wins.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class Source:
    """What lies at a path, before anyone asks what layout it is.

    Attributes:
        path: the file the weights came from (of a sharded folder: its index).
        content: a flat dict of tensors, or for torch files whatever was saved.
        records: class -> how often the file wanted one and got an inert record.
        config: the `config.json` beside the weights, if any.
    """

    path: Path
    content: Any
    records: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] | None = None


def read_source(path: str | Path) -> Source:
    """Read a weights file or a folder of one, of whatever kind.

    Args:
        path: `.safetensors`, `.pt`, `.pth`, `.bin`, `.ckpt`, an index of shards, or a folder with `model.safetensors`,
            `pytorch_model.bin` or shards.

    Raises:
        CheckpointError: nothing readable there.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in _WEIGHTS if (path / name).is_file()]
        if not found:
            raise CheckpointError(f"{path}: no weights here; expected one of {', '.join(_WEIGHTS)}")
        path = found[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    config = read_json(path.parent / "config.json") if (path.parent / "config.json").is_file() else None
    if path.name.endswith(".index.json"):
        content, records = _read_shards(path)
    elif path.suffix == ".safetensors":
        content, records = read_safetensors(path), {}
    else:
        file = read_torch_file(path)
        content, records = file.content, file.records
    return Source(path, content, records, config)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Map every tensor of a safetensors file; nothing is copied until it is used.

    Raises:
        CheckpointError: damaged, cut off, or claiming more than the file holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = int.from_bytes(start, "little")
    if len(start) < 8 or header > min(size - 8, _MAX_HEADER):
        raise CheckpointError(f"{path}: the header claims {header} bytes, the file has {size}: cut off or damaged")
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file ({error})") from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors one after the other: beside their source only one is in memory.

    The bytes are those that the safetensors library writes. The file appears under its name when it is complete.
    """
    names = sorted(tensors, key=lambda name: (_ORDER.index(_name(tensors[name], name)), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in names:
        size = tensors[name].numel() * tensors[name].element_size()
        offsets = [position, position + size]
        header[name] = {
            "dtype": _name(tensors[name], name),
            "shape": list(tensors[name].shape),
            "data_offsets": offsets,
        }
        position += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_raw(tensors[name]))
            release(tensors[name])
    os.replace(partial, path)


def _name(tensor: Tensor, name: str) -> str:
    if tensor.dtype not in _NAMES:
        raise CheckpointError(f"{name}: safetensors has no name for {tensor.dtype}")
    return _NAMES[tensor.dtype]


def _raw(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def write_torch_file(path: Path, content: Any) -> None:
    """`torch.save`, whose peak is the largest tensor. The file appears under its name when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    with _Releasing(partial.open("wb", buffering=0)) as file:
        torch.save(content, file)
    os.replace(partial, path)


class _Releasing(io.BufferedWriter):
    """A file that releases the memory it was given; `torch.save` hands it every tensor's as it is, in one piece."""

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        if written >= mmap.PAGESIZE:
            _release_range(np.frombuffer(data, np.uint8).ctypes.data, written)
        return written


def release(tensor: Tensor) -> None:
    """Take a tensor of a mapped file, which is done with for now, out of resident memory."""
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        _release_range(tensor.data_ptr(), tensor.nbytes)


def _release_range(start: int, size: int) -> None:
    """Unmap the pages of a tensor that has been written; touched again, they come from the file's cache.

    Mapped pages count as resident memory: without this the peak is the whole file. Only where every page still is the
    file's: a private page (memory of our own, or a tensor that was changed) would lose what it holds. Linux only.
    """
    first, last = start // mmap.PAGESIZE, (start + size - 1) // mmap.PAGESIZE + 1
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:  # 8 bytes a page
            file.seek(first * 8)
            states = np.frombuffer(file.read((last - first) * 8), np.uint64) >> np.uint64(61)
    except OSError:
        return
    if len(states) == last - first and np.isin(states, (_ABSENT, _PRESENT_FILE)).all():
        place, length = ctypes.c_void_p(first * mmap.PAGESIZE), ctypes.c_size_t((last - first) * mmap.PAGESIZE)
        ctypes.CDLL(None).madvise(place, length, mmap.MADV_DONTNEED)


def _read_shards(index: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    where = (read_json(index)).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{index}: no weight_map of tensor name -> file name")
    tensors: dict[str, Tensor] = {}
    records: dict[str, int] = {}
    for shard in sorted(set(where.values())):
        if Path(shard).name != shard or shard.endswith(".index.json"):
            raise CheckpointError(f"{index}: shard {shard!r} is no plain file name beside the index")
        part = read_source(index.parent / shard)
        records |= part.records
        tensors |= dict(_tensors_of(part))
    if missing := sorted(set(where) - set(tensors)):
        raise CheckpointError(
            f"{index}: {len(missing)} tensors are in no shard, first {missing[0]!r}: fetch the shards again"
        )
    return {name: tensors[name] for name in where}, records


def _tensors_of(source: Source) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(source.content, dict):
        raise CheckpointError(
            f"{source.path}: a shard holds a dict of tensors, this one a {type(source.content).__name__}"
        )
    yield from ((str(name), value) for name, value in source.content.items() if isinstance(value, Tensor))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size.

    Raises:
        CheckpointError: too large, not JSON, or no object.
    """
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError(
            f"{path}: {path.stat().st_size} bytes of JSON are too many for a configuration or an index"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value

"""Reading what `torch.save` wrote (zip files and the stream before torch 1.6), without `torch.load`.

`torch.load(weights_only=True)` refuses the files this library must read (they hold `argparse.Namespace`, `omegaconf`
and numpy objects), `weights_only=False` runs whatever they ask for. Here a `Machine` follows the pickle, and tensors
are views of the mapped file: nothing is copied until it is used.
"""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data2vec.conversion.archive import Span, read_directory
from data2vec.conversion.constructors import PLAIN
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.pickles import MAX_BYTES, Machine, Symbol, Window

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_SIZE = 1 << 48  # of one dimension: far above any file, far below overflow
_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES.values()}


@dataclass(frozen=True, slots=True)
class TorchFile:
    """The content of a torch file.

    Attributes:
        content: what was saved: dicts, lists, numbers, tensors (views of the mapped file) and `Record`s.
        records: class or function -> how often the file wanted one and got a `Record` instead.
    """

    content: Any
    records: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int  # elements


def read_torch_file(path: str | Path) -> TorchFile:
    """Read a `.pt`, `.pth`, `.bin`, `.ckpt` file; nothing in it is run.

    Args:
        path: a file written by `torch.save`, zip or legacy format.

    Raises:
        CheckpointError: damaged, cut off, malicious, compressed, a tar (torch < 0.1.10) or no torch file at all.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    with path.open("rb") as file:
        data = mmap.mmap(
            file.fileno(), 0, access=mmap.ACCESS_COPY
        )  # private: writing to a tensor leaves the file alone
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        if data[257:262] == b"ustar":
            raise CheckpointError("a tar written by torch before 0.1.10; load it with an old torch and save it again")
        if data[:1] == b"\x80":
            return _read_legacy(data)
        raise CheckpointError("not written by torch.save (neither a zip file nor a pickle)")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_zip(data: mmap.mmap) -> TorchFile:
    entries = read_directory(data)
    pickled = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise CheckpointError("the zip file holds no data.pkl: it was not written by torch.save")
    top = pickled[0].removesuffix("data.pkl")
    if any(name.startswith(f"{top}code/") for name in entries):
        raise CheckpointError("a TorchScript program, no checkpoint: save model.state_dict() with torch.save instead")
    order = entries.get(f"{top}byteorder")
    if order is not None and bytes(data[order.start : order.start + min(order.size, 16)]) != sys.byteorder.encode():
        raise CheckpointError("saved on a machine of the other byte order; load and save it there with safetensors")
    span = entries[pickled[0]]
    if span.size > MAX_BYTES:
        raise CheckpointError(f"data.pkl has {span.size} bytes; a checkpoint's has less than {MAX_BYTES}")
    tensors = _Tensors(data, {name.removeprefix(f"{top}data/"): s for name, s in entries.items()})
    machine = tensors.machine()
    return TorchFile(machine.run(Window(data, span.start, span.size)), dict(machine.records))


def _read_legacy(data: mmap.mmap) -> TorchFile:
    """Magic, protocol, system, object, storage keys: five pickles; then every storage as (int64 count, raw).

    The object comes before the place of its storages is known, so it is followed twice: for the sizes, then for good.
    """
    head = Window(data)
    plain = Machine(PLAIN, _no_storage)
    if plain.run(head) != _LEGACY_MAGIC or plain.run(head) != _LEGACY_PROTOCOL:
        raise CheckpointError("a pickle, but not written by torch.save")
    system = plain.run(head)
    if not isinstance(system, dict) or system.get("little_endian") is not (sys.byteorder == "little"):
        raise CheckpointError("saved on a machine of the other byte order; load and save it there with safetensors")
    start = head.tell()
    survey = _Tensors(data, None)
    survey.machine().run(head)
    keys = plain.run(head)
    if not isinstance(keys, list):
        raise CheckpointError("damaged list of storages")
    tensors = _Tensors(data, _locate_storages(data, head.tell(), keys, survey.storages))
    machine = tensors.machine()
    return TorchFile(machine.run(Window(data, start)), dict(machine.records))


def _locate_storages(data: mmap.mmap, position: int, keys: list[Any], storages: dict[str, _Storage]) -> dict[str, Span]:
    spans = {}
    for key in map(str, keys):
        if key not in storages:
            raise CheckpointError(f"storage {key[:40]!r} is listed but never used: the file is damaged")
        count = int.from_bytes(data[position : position + 8], sys.byteorder, signed=True)
        span = Span(position + 8, storages[key].count * storages[key].dtype.itemsize)
        if count != storages[key].count or span.start + span.size > len(data):
            raise CheckpointError(f"storage {key[:40]!r} claims {span.size} bytes: the file is cut off or damaged")
        spans[key] = span
        position = span.start + span.size
    return spans


def _no_storage(_: Any) -> Any:
    raise CheckpointError("a tensor where none belongs: the file is damaged")


class _Tensors:
    """Builds tensors over the mapped file; without `spans` only notes which storages there are."""

    def __init__(self, data: mmap.mmap, spans: dict[str, Span] | None) -> None:
        self._data = data
        self._spans = spans
        self.storages: dict[str, _Storage] = {}

    def machine(self) -> Machine:
        rebuild = {
            "torch._utils._rebuild_tensor": self._rebuild,
            "torch._utils._rebuild_tensor_v2": self._rebuild,
            "torch._utils._rebuild_tensor_v3": self._rebuild_v3,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        }
        return Machine(PLAIN | rebuild, self._storage)

    def _storage(self, identity: Any) -> _Storage:
        """Read ("storage", class, key, device, count[, view]); the view, of the legacy format, is None since 0.4."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise TypeError("damaged storage")
        _, kind, key, _, count = identity[:5]
        if not isinstance(kind, Symbol) or kind.name not in _DTYPES or not kind.module.startswith("torch"):
            raise CheckpointError(f"storages of type {kind} are not supported: save the weights as float32")
        if not isinstance(count, int) or count < 0 or (len(identity) == 6 and identity[5] is not None):
            raise TypeError("damaged storage")
        storage = _Storage(str(key), _DTYPES[kind.name], count)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise CheckpointError(f"storage {storage.key[:40]!r} has two sizes: the file is damaged")
        return storage

    def _rebuild_v3(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | None:
        """As v2, with the dtype named beside an untyped storage."""
        kind = rest[2]  # after requires_grad and the hooks
        if not isinstance(kind, Symbol) or kind.module != "torch" or kind.name not in _BY_NAME:
            raise CheckpointError(f"tensors of type {kind} are not supported: save the weights as float32")
        dtype = _BY_NAME[kind.name]
        return self._rebuild(_Storage(storage.key, dtype, storage.count // dtype.itemsize), offset, size, stride)

    def _rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor | None:
        """A view of the file, after checking that every element of it lies in its storage."""
        if not isinstance(storage, _Storage):
            raise TypeError("damaged tensor")
        _check_view(storage, offset, size, stride)
        if self._spans is None:
            return None
        span = self._spans.get(storage.key)
        if span is None:
            raise CheckpointError(f"storage {storage.key[:40]!r} is missing: the file is damaged")
        if storage.count * storage.dtype.itemsize > span.size:
            raise CheckpointError(f"storage {storage.key[:40]!r} claims more than its {span.size} bytes: damaged file")
        if 0 in size:
            return torch.empty(size, dtype=storage.dtype)
        flat = self._flat(span.start, storage)
        return flat.as_strided(size, stride, offset)

    def _flat(self, start: int, storage: _Storage) -> Tensor:
        if start % storage.dtype.itemsize == 0:
            return torch.frombuffer(self._data, dtype=storage.dtype, count=storage.count, offset=start)
        raw = bytearray(self._data[start : start + storage.count * storage.dtype.itemsize])  # unaligned: one copy
        return torch.frombuffer(raw, dtype=storage.dtype)


def _check_view(storage: _Storage, offset: Any, size: Any, stride: Any) -> None:
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > 16:
        raise TypeError("damaged tensor")
    if any(not isinstance(n, int) or not 0 <= n <= _MAX_SIZE for n in (offset, *size, *stride)):
        raise CheckpointError("a tensor has an absurd size or stride: the file is damaged or made to deceive")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += max(length - 1, 0) * step
    if count and (last >= storage.count or count > storage.count):
        raise CheckpointError(
            f"a tensor of shape {size} does not fit into its storage of {storage.count} elements: the file is damaged"
        )

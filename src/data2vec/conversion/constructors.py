"""The few plain values a checkpoint's pickle may build, by functions of ours that check their arguments first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.pickles import Builder, cheap_key


@dataclass(slots=True, eq=False)
class NumpyType:
    """A numpy dtype while it is being built; plain numbers only."""

    code: str
    order: str = "="

    def restore(self, state: Any) -> None:
        """Take the byte order, second of the eight values numpy stores."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise TypeError("damaged numpy dtype")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The finished type."""
        return np.dtype(("" if self.order == "|" else self.order) + self.code)


@dataclass(slots=True, eq=False)
class NumpyArray:
    """A numpy array while it is being built."""

    value: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0))

    def restore(self, state: Any) -> None:
        """Take (version, shape, dtype, Fortran order, bytes) and check that they agree."""
        _, shape, kind, fortran, raw = state
        self.value = _array(raw, kind, shape, "F" if fortran else "C")


def _dtype(code: Any, *_: Any) -> NumpyType:
    if not isinstance(code, str) or code.lstrip("<>=|") not in _CODES:
        raise CheckpointError(f"a numpy value of type {str(code)[:40]!r} is no plain number: refused")
    return NumpyType(code.lstrip("<>=|"))


_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


def _array(raw: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(kind, NumpyType) or not isinstance(raw, bytes | bytearray) or order not in ("C", "F"):
        raise TypeError("damaged numpy array")
    count = 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"damaged numpy shape {shape}")
        count *= size
    if count * kind.dtype.itemsize != len(raw):
        raise ValueError(f"numpy array of shape {shape} with {len(raw)} bytes")
    return np.frombuffer(raw, kind.dtype).reshape(shape, order=order)


def _scalar(kind: Any, raw: Any = None) -> Any:
    return _array(raw, kind, ())[()].item()


def _reconstruct(*_: Any) -> NumpyArray:
    return NumpyArray()


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    """How protocol 2 writes `bytes`."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise TypeError("damaged bytes")
    return text.encode(encoding)


def _bytes(value: Any = b"", encoding: Any = "latin-1") -> bytes:
    if isinstance(value, str):
        return _encode(value, encoding)
    if not isinstance(value, bytes | bytearray):  # bytes(10**12) would take a terabyte
        raise TypeError("damaged bytes")
    return bytes(value)


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return {cheap_key(item) for item in items}


def _dict(*args: Any) -> dict[Any, Any]:
    """OrderedDict, Counter: pairs or a dict; defaultdict: a factory, which is dropped."""
    items = args[0] if args else ()
    if isinstance(items, dict):
        return dict(items)
    return {cheap_key(key): value for key, value in items} if isinstance(items, list | tuple) else {}


PLAIN: dict[str, Builder] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _dict,
    "builtins.dict": _dict,
    "builtins.set": _set,
    "builtins.frozenset": lambda items=(): frozenset(_set(items)),
    "builtins.list": lambda items=(): list(items),
    "builtins.tuple": lambda items=(): tuple(items),
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": lambda real=0.0, imag=0.0: complex(float(real), float(imag)),
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "torch.Size": lambda sizes=(): tuple(sizes),
}

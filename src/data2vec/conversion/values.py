"""Stored training settings as plain values: what `argparse`, `omegaconf` and dataclasses left in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data2vec.conversion.constructors import NumpyArray, NumpyType
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.pickles import Record, Symbol

_MAX_NODES = 50_000
_MAX_DEPTH = 60


def plain(value: Any) -> Any:
    """Turn dicts, lists, numbers and inert records into dicts with string keys, lists and numbers.

    A namespace or a configuration node becomes its fields, an enum member its value, everything else its class name.

    Raises:
        CheckpointError: nested too deeply or too large to be a configuration (values may be shared a million times).
    """
    return _plain(value, [_MAX_NODES], 0)


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > _MAX_DEPTH:
        raise CheckpointError("the stored configuration is nested too deeply or too large to be one")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key)[:200]: _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, budget, depth + 1) for item in value]
    if isinstance(value, Record):
        return _plain(_inside(value), budget, depth + 1)
    if isinstance(value, NumpyArray | NumpyType | bytes):
        return f"<{type(value).__name__}>"
    return str(value) if isinstance(value, Symbol) else f"<{type(value).__name__}>"


def _inside(record: Record) -> Any:
    """The part of a record that a reader of settings wants."""
    state = record.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict | None):  # (fields, slots)
        state = {**(state[0] or {}), **(state[1] if isinstance(state[1], dict) else {})}
    if isinstance(state, dict):
        for content in ("_content", "_val"):  # an omegaconf container, an omegaconf value
            if content in state:
                return state[content]
        return state
    if record.entries:
        return record.entries
    if record.items:
        return record.items
    if len(record.args) == 1 and isinstance(record.args[0], bool | int | float | str):  # an enum member
        return record.args[0]
    return str(record.symbol)


@dataclass(frozen=True)
class Settings:
    """Read access to stored settings whose shape nobody guarantees.

    Attributes:
        values: nested plain dicts.
        roots: dotted places to look below, the most specific first.
    """

    values: dict[str, Any] = field(default_factory=dict)
    roots: tuple[str, ...] = ("",)

    def number(self, *paths: str, low: float = 0, high: float = 1e9) -> float | None:
        """The first number found at one of the dotted `paths` that lies in a sensible range."""
        return next((v for v in self._found(paths) if _is_number(v) and low <= v <= high), None)

    def whole(self, *paths: str, low: int = 1, high: int = 1_000_000) -> int | None:
        """The same for whole numbers."""
        return next((v for v in self._found(paths) if type(v) is int and low <= v <= high), None)

    def text(self, *paths: str) -> str | None:
        """The first string found."""
        return next((v for v in self._found(paths) if isinstance(v, str)), None)

    def flag(self, *paths: str) -> bool | None:
        """The first truth value found."""
        return next((v for v in self._found(paths) if isinstance(v, bool)), None)

    def _found(self, paths: tuple[str, ...]) -> Iterator[Any]:
        for root in self.roots:
            for path in paths:
                value: Any = self.values
                for part in [*root.split("."), *path.split(".")]:
                    if part:
                        value = value.get(part) if isinstance(value, dict) else None
                if value is not None:
                    yield value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

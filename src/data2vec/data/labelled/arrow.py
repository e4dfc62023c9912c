"""Tables of the package `datasets` (extra ``datasets``): what ``save_to_disk`` wrote, parquet and arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data2vec.data.labelled.example import split_of, without_tests
from data2vec.errors import BadSample, UserError, require

_SUFFIXES = (".parquet", ".arrow")
_WHOLE = "dataset_dict.json"
_PART = "state.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """A recording or a picture in a table, read when it is used."""

    table: Path
    row: int
    column: str

    def __str__(self) -> str:
        return f"{self.table}: row {self.row}"

    def read(self) -> bytes:
        """Its bytes; raises `BadSample`."""
        value = _open(self.table)[self.row][self.column]
        try:
            content: bytes = value["bytes"] or Path(value["path"]).read_bytes()
        except (OSError, KeyError, TypeError) as error:
            raise BadSample(self, f"{self.column} cannot be read ({error})") from error
        return content


def is_arrow(table: Path) -> bool:
    """Whether a file or folder is one such table."""
    return table.suffix.lower() in _SUFFIXES or (table / _PART).is_file()


def arrow_tables(source: Path) -> list[Path]:
    """The tables that `source` is or holds, each named after its side; empty where it is something else.

    Parquet files may lie in a folder ``data``, in several pieces a side, as on the hub. ``test`` is taken for judging
    only where there is nothing else.
    """
    if is_arrow(source):
        return [source]
    if (source / _WHOLE).is_file():
        names = json.loads((source / _WHOLE).read_text(encoding="utf-8"))["splits"]
        return _without_tests([source / name for name in names])
    for folder in (source, source / "data"):
        if files := sorted(path for suffix in _SUFFIXES for path in folder.glob(f"*{suffix}")):
            return _without_tests(files)
    return []


def _without_tests(tables: list[Path]) -> list[Path]:
    return without_tests((split_of(table.stem), table) for table in tables)


def arrow_rows(table: Path) -> Iterator[dict[str, Any]]:
    """Rows by column: classes by their names, recordings and pictures as `Stored`.

    Raises:
        UserError: the table cannot be read.
        ImportError: `datasets` is not installed.
    """
    rows = _open(table)
    files = [name for name, kind in rows.features.items() if _is_file(kind)]
    light = rows.remove_columns(files)
    for row in range(len(rows)):
        values = light[row] if light.column_names else {}
        named = {name: _named(value, light.features[name]) for name, value in values.items()}
        yield named | {name: Stored(table, row, name) for name in files}


@lru_cache(maxsize=8)
def _open(table: Path) -> Any:
    """A `datasets.Dataset` that lies in memory maps; files in it are not decoded."""
    datasets = require("datasets", extra="datasets")
    try:
        if table.is_dir():
            rows = datasets.load_from_disk(str(table))
        elif table.suffix.lower() == ".arrow":
            rows = datasets.Dataset.from_file(str(table))
        else:
            parquet = require("pyarrow.parquet", extra="datasets")
            rows = datasets.Dataset(datasets.table.InMemoryTable(parquet.read_table(table, memory_map=True)))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{table}: cannot be read as a data set ({error})") from error
    for name, kind in rows.features.items():
        if _is_file(kind):
            rows = rows.cast_column(name, type(kind)(decode=False))
    return rows


def _is_file(kind: Any) -> bool:
    return type(kind).__name__ in ("Audio", "Image")


def _named(value: Any, kind: Any) -> Any:
    """Numbers of classes as their names; -1 stands for none."""
    inner = getattr(kind, "feature", None)
    if isinstance(value, list) and inner is not None:
        return [_named(item, inner) for item in value]
    if value is None or type(kind).__name__ != "ClassLabel":
        return value
    return kind.names[value] if value >= 0 else None

"""Rows of tables, each with its number: CSV, TSV (quoted or not), JSON lines; with an extra, parquet and arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data2vec.data.labelled.arrow import arrow_rows, is_arrow
from data2vec.data.labelled.example import HELD_OUT, TRAIN, Split, split_of
from data2vec.data.manifest import csv_rows, read_text, split_lines
from data2vec.errors import BadSample, UserError

TABLES = (".csv", ".tsv", ".jsonl", ".json")
_JSON = (".jsonl", ".json")


class Row(NamedTuple):
    """One row: where it stands, and its values by column; `number` counts lines from 1, or rows from 0."""

    path: Path
    number: int
    values: dict[str, Any]
    unit: str = "line"

    @property
    def source(self) -> str:
        """As people are told about it."""
        return f"{self.path}: {self.unit} {self.number}"

    def text(self, column: str, default: str | None = None) -> str:
        """A value, which must be there where there is no `default`.

        Raises:
            BadSample: it is blank or missing; or a list or an object.
        """
        value = self.values.get(column)
        if isinstance(value, list | dict):
            raise BadSample(self.source, f"{column} must be a text, not {json.dumps(value, default=str)[:80]}")
        text = "" if value is None else str(value)
        if text.strip():
            return text
        if default is None:
            raise BadSample(self.source, f"has no {column}")
        return default

    def split(self) -> Split:
        """The side that a column ``split`` puts it on; "" without one.

        Raises:
            BadSample: it names neither side, as ``unused`` does: guessing might train on what was kept apart.
        """
        value = str(self.values.get("split") or "")
        if value and not split_of(value):
            raise BadSample(self.source, f"split {value!r} is none of {', '.join(sorted(TRAIN | HELD_OUT))}")
        return split_of(value)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row | BadSample]:
    """Rows of a table.

    Tab-separated files are read without quoting, as GLUE's are written; CSV files with it.

    Args:
        path: ``.jsonl``, ``.tsv``, or ``.csv`` (which may be separated by tabs all the same); or a table of `datasets`.
        columns: names of a table without header.

    Raises:
        UserError: it cannot be read, is empty, or has no header.
    """
    if is_arrow(path):
        yield from (Row(path, number, values, "row") for number, values in enumerate(arrow_rows(path)))
        return
    text = read_text(path)
    if path.suffix.lower() in _JSON:
        yield from _json_rows(path, text)
        return
    lines = text.split("\n")
    tabs = "\t" in lines[0]
    rows = _tab_rows(lines) if tabs else _comma_rows(path, text)
    header = list(columns) if columns else next(rows, (0, []))[1]
    if not header or len({name for name in header if name}) < len([name for name in header if name]):
        raise UserError(f"{path}: line 1 must name the columns, each once")
    for number, fields in rows:
        if len(fields) != len(header) and not (columns and len(fields) > len(header)):
            yield BadSample(f"{path}: line {number}", f"has {len(fields)} fields, the header {len(header)}")
        else:
            yield Row(path, number, dict(zip(header, fields, strict=False)))


def first_fields(path: Path) -> list[str]:
    """The fields of the first line of a table, to tell its layout."""
    text = read_text(path)
    first = text.split("\n", 1)[0]
    rows = _tab_rows([first]) if "\t" in first else _comma_rows(path, text)
    return next(rows, (0, []))[1]


def require_columns(row: Row, wanted: Sequence[str]) -> None:
    """Refuse a table that lacks columns, or a row of JSON that does: each of those has its own.

    Raises:
        UserError: naming those that the table has.
        BadSample: naming those that the row of JSON has.
    """
    missing = [name for name in wanted if name not in row.values]
    if missing:
        has = ", ".join(name for name in row.values if name)
        reason = f"no column {', '.join(map(repr, missing))} among {has}"
        raise BadSample(row.source, reason) if row.path.suffix.lower() in _JSON else UserError(f"{row.path}: {reason}")


def _tab_rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line:
            yield number, line.split("\t")


def _comma_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    return ((number, fields) for number, fields in csv_rows(path, text) if fields)


def _json_rows(path: Path, text: str) -> Iterator[Row | BadSample]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            yield BadSample(f"{path}: line {number}", f"is not JSON ({error.msg})")
            continue
        if isinstance(values, dict):
            yield Row(path, number, values)
        else:
            yield BadSample(f"{path}: line {number}", 'must be an object like {"text": ...}')

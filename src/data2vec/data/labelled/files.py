"""Files of one class each: in a folder named after it, or in a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from data2vec.data.labelled.arrow import Stored, arrow_tables
from data2vec.data.labelled.example import (
    Example,
    Read,
    Zipped,
    class_names,
    named_label,
    side_of,
    split_files,
    split_of,
    with_split,
)
from data2vec.data.labelled.tables import Row, read_rows, require_columns
from data2vec.data.manifest import PATH_COLUMNS, read_manifest
from data2vec.errors import BadSample, UserError

METADATA = ("metadata.csv", "metadata.jsonl", "manifest.jsonl", "manifest.csv")


def read_classes(source: Path, suffixes: Collection[str], *, label: str = "label") -> Iterator[Read]:
    """Files with a class.

    Args:
        source: a folder or zip with a folder a class (within train and dev or not); a .csv or .jsonl with a column of
            files and one of classes; a folder that holds such a table (``metadata.csv``, ``train.csv``); or a data set
            of `datasets` (`data2vec.data.labelled.arrow`).
        suffixes: endings of the files wanted.
        label: of a table, the column of the class.

    Yields:
        Examples with a path (or a `Zipped`, a `Stored`) as input and the name of a class as target.
    """
    tables = file_tables(source)
    if tables:
        names = class_names(tables[0].parent) if label == "label" else []
        for table in tables:
            yield from with_split(_table(table, label, names), split_of(table.stem))
        return
    manifest = read_manifest(source, suffixes)
    paths = [PurePosixPath(name) for name in manifest.names]
    alone = next((path for path in paths if len(path.parts) < 2), None)
    if alone is not None:
        raise UserError(f"{source}: {alone} lies in no folder: put each file in a folder named after its class")
    for index, path in enumerate(paths):
        split = side_of(path.parts[:-2])
        file = Zipped(manifest.root, str(path)) if manifest.zipped else manifest.root / path
        yield Example(manifest.describe(index), file, path.parent.name, split)


def file_tables(source: Path) -> list[Path]:
    """The table that `source` is, or those that the folder `source` holds."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if tables := arrow_tables(source):
        return tables
    if source.is_file():
        return [source] if source.suffix.lower() in (".csv", ".jsonl") else []
    known = [source / name for name in METADATA if (source / name).is_file()]
    return known[:1] or split_files(source, (".csv", ".jsonl"))


def file_of(row: Row) -> Path | Stored:
    """The file that a row is about, or holds.

    Raises:
        UserError: no column of files.
        BadSample: the field is empty, there is no such file, or a row of JSON has no column of files.
    """
    stored = (name for name, value in row.values.items() if isinstance(value, Stored))
    column = next(stored, None) or next((name for name in PATH_COLUMNS if name in row.values), PATH_COLUMNS[0])
    require_columns(row, [column])
    if isinstance(value := row.values[column], Stored):
        return value
    path = row.path.parent / row.text(column)
    if not path.is_file():
        raise BadSample(row.source, f"{column} {row.values[column]!r}: no such file")
    return path


def _table(table: Path, label: str, names: list[str]) -> Iterator[Read]:
    for row in read_rows(table):
        if isinstance(row, BadSample):
            yield row
            continue
        try:
            require_columns(row, [label])
            target = named_label(row.text(label), names)
            path = file_of(row)
            yield Example(str(path), path, target, row.split(), row.source)
        except BadSample as error:
            yield error

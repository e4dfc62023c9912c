"""Labelled files as people have them: items, what they are called, and which of them are held out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data2vec.data.manifest import Manifest, read_columns, read_manifest
from data2vec.errors import UserError

TRAIN = ("train", "training")
HELD_OUT = ("dev", "val", "valid", "validation", "test")
_TABLES = (".csv", ".jsonl")
Item = str | Path | bytes


@dataclass(frozen=True)
class Labelled:
    """Items with labels.

    Attributes:
        items: each a text, a file, or the bytes of a file in a zip.
        labels: their classes.
    """

    items: list[Item]
    labels: list[str]


def read_labelled(
    source: Path, suffixes: Collection[str], *, column: str = "label", text: str | None = None, seed: int = 0
) -> tuple[Labelled, Labelled]:
    """The training and the held-out items of a labelled source.

    Args:
        source: a folder or zip with a folder a class, perhaps within ``train`` and ``dev`` (val, valid, test ...); a
            .csv or .jsonl with a column of labels and perhaps one called ``split``; or a folder with ``train.csv``
            and ``dev.csv``.
        suffixes: endings of the files wanted.
        column: of a table, the labels.
        text: of a table, the column with the text itself; None where its rows name files.
        seed: without a split, of the draw of a fifth of the items that is held out.

    Raises:
        UserError: no such source, no labels in it, or nothing on one side of its split.
    """
    tables = _split_tables(source) if source.is_dir() else []
    if tables:
        train, dev = (_read_table(table, suffixes, column, text)[0] for table in tables)
        return train, dev
    if source.suffix.lower() in _TABLES:
        everything, split = _read_table(source, suffixes, column, text)
    else:
        everything, split = _read_folders(read_manifest(source, suffixes))
    return _divide(everything, split, source, seed)


def _split_tables(folder: Path) -> list[Path]:
    """``[train.csv, dev.csv]`` under any of their names, or nothing."""
    pairs = [
        [folder / f"{train}{suffix}", folder / f"{dev}{suffix}"]
        for train in TRAIN
        for dev in HELD_OUT
        for suffix in _TABLES
    ]
    return next((pair for pair in pairs if all(table.is_file() for table in pair)), [])


def _read_table(
    table: Path, suffixes: Collection[str], column: str, text: str | None
) -> tuple[Labelled, list[str] | None]:
    if text is not None:
        columns = read_columns(table)
        items: list[Item] = list(columns.get(text, []))
    else:
        manifest = read_manifest(table, suffixes)
        columns, items = manifest.columns, [manifest.open(index) for index in range(len(manifest))]
    for needed in (column, *([text] if text else [])):
        if needed not in columns:
            raise UserError(f"{table}: no column {needed!r} among {', '.join(columns)}")
    return Labelled(items, columns[column]), columns.get("split")


def _read_folders(manifest: Manifest) -> tuple[Labelled, list[str] | None]:
    """The label is the folder a file lies in; a split is the first folder of its path."""
    paths = [PurePosixPath(name) for name in manifest.names]
    alone = next((path for path in paths if len(path.parts) < 2), None)
    if alone is not None:
        raise UserError(f"{manifest.root}: {alone} lies in no folder: put each file in a folder named after its class")
    items: list[Item] = [manifest.open(index) for index in range(len(manifest))]
    first = [path.parts[0].lower() for path in paths]
    splits = all(name in (*TRAIN, *HELD_OUT) for name in first) and all(len(path.parts) > 2 for path in paths)
    return Labelled(items, [path.parent.name for path in paths]), first if splits else None


def _divide(everything: Labelled, split: Sequence[str] | None, source: Path, seed: int) -> tuple[Labelled, Labelled]:
    count = len(everything.items)
    if split is None:
        held = np.zeros(count, dtype=bool)
        held[np.random.default_rng(seed).permutation(count)[: count // 5]] = True
        trains = ~held
    else:
        held = np.array([name.lower() in HELD_OUT for name in split], dtype=bool)
        trains = np.array([name.lower() in TRAIN for name in split], dtype=bool)
    if not held.any() or not trains.any():
        raise UserError(
            f"{source}: {trains.sum()} items to train a probe and {held.sum()} held out; a split says train on one "
            f"side and one of {', '.join(HELD_OUT)} on the other"
        )
    return _take(everything, np.flatnonzero(trains)), _take(everything, np.flatnonzero(held))


def _take(all_of: Labelled, places: np.ndarray) -> Labelled:
    return Labelled([all_of.items[i] for i in places], [all_of.labels[i] for i in places])

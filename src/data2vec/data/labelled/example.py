"""What every reader yields: an example, or what is wrong with its row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from data2vec.data.manifest import Manifest, read_text
from data2vec.data.skips import Skipped
from data2vec.errors import BadSample, UserError

Split = Literal["train", "dev", "test", ""]
TRAIN = frozenset({"train", "training"})
TEST = frozenset({"test", "testing"})
HELD_OUT = TEST | {"dev", "val", "valid", "validation", "eval"}


@dataclass(frozen=True, slots=True)
class Example:
    """One item with its label.

    Attributes:
        source: file, or ``file: line n``, as people are told about it; unique within a data set.
        input: what a model reads: a file, a text, a pair of texts ...; each reader says.
        target: its label; None where it is to be predicted.
        split: the side it was put on; "" where the data do not say.
        row: where the label stands, if elsewhere.
    """

    source: str
    input: Any
    target: Any = None
    split: Split = ""
    row: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """The source, behind the row of its label."""
        return f"{self.row}: {self.source}" if self.row else self.source


Read = Example | BadSample


@dataclass(frozen=True, slots=True)
class Zipped:
    """A file in a zip, read when it is used."""

    archive: Path
    name: str

    def read(self) -> bytes:
        """Its bytes; raises `BadSample`."""
        content = Manifest(self.archive, [self.name]).open(0)
        assert isinstance(content, bytes)
        return content


class Inside(Protocol):
    """A file in another: in a zip, in a table."""

    def read(self) -> bytes:
        """Its bytes; raises `BadSample`."""
        ...


def opened(file: Path | Inside) -> Path | bytes:
    """What decoders take."""
    return file if isinstance(file, Path) else file.read()


class Turn(NamedTuple):
    """Something lasts: seconds, and a name (of a speaker, of a phone)."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Splits:
    """Examples to learn from and to be judged by.

    Attributes:
        train: may be empty when everything is for judging.
        dev: held out.
        skipped: rows that cannot be used.
    """

    train: list[Example]
    dev: list[Example]
    skipped: list[Skipped]

    @property
    def all(self) -> list[Example]:
        """Both sides."""
        return self.train + self.dev


def settle(read: Iterable[Read], skip_bad: bool = False) -> tuple[list[Example], list[Skipped]]:
    """Part examples from bad rows.

    Raises:
        UserError: a row is bad and `skip_bad` is off (the first is named, the others counted), or nothing is left.
    """
    items = list(_once(read))
    good = [item for item in items if isinstance(item, Example)]
    bad = [item for item in items if isinstance(item, BadSample)]
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more like this)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; mend it, or leave such rows out with --skip-bad")
    if not good:
        raise UserError(str(bad[0]) if bad else "there are no examples")
    return good, [Skipped.of(item) for item in bad]


def _once(read: Iterable[Read]) -> Iterator[Read]:
    """The same; what comes again is bad, and in the data by mistake, on both sides perhaps."""
    first: dict[str, str] = {}
    for item in read:
        if isinstance(item, Example) and item.source in first:
            before = f", first in {first[item.source]}" if first[item.source] else ""
            yield BadSample(item.where, f"comes twice{before}")
        else:
            if isinstance(item, Example):
                first[item.source] = item.row
            yield item


def divide(
    read: Iterable[Read], *, skip_bad: bool = False, share: float = 0.2, seed: int = 0, hold_out: bool = True
) -> Splits:
    """The two sides, as the data say; where they do not, a random `share` is held out.

    ``test`` is judged by only where there is no ``dev``, and belongs to neither side otherwise: what picks a checkpoint
    does not tell how good it is.

    Args:
        read: what a reader yields.
        skip_bad: leave bad rows out instead of stopping.
        share: of the examples, held out where the data have one side only.
        seed: of that draw.
        hold_out: False puts examples of no side all on the side they are judged by (evaluation of a file).

    Raises:
        UserError: see `settle`; or a side is empty.
    """
    examples, skipped = settle(read, skip_bad)
    train = [example for example in examples if example.split == "train"]
    dev = [example for example in examples if example.split == "dev"]
    dev = dev or [example for example in examples if example.split == "test"]
    unsaid = [example for example in examples if not example.split]
    if not hold_out:
        return Splits(train, dev or unsaid or train, skipped)
    if not dev:
        pool = train + unsaid
        held = np.zeros(len(pool), dtype=bool)
        held[np.random.default_rng(seed).permutation(len(pool))[: round(share * len(pool))]] = True
        train = [example for example, out in zip(pool, held, strict=True) if not out]
        dev = [example for example, out in zip(pool, held, strict=True) if out]
    else:
        train += unsaid
    if not train or not dev:
        raise UserError(f"{len(train)} examples to train on and {len(dev)} held out: there must be some on both sides")
    return Splits(train, dev, skipped)


def split_of(name: str) -> Split:
    """The side that a file, a folder or the value of a column is named after, as in ``sts-dev.csv``."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    if words & TRAIN:
        return "train"
    if words & TEST:
        return "test"
    return "dev" if words & HELD_OUT else ""


def side_of(parts: Iterable[str]) -> Split:
    """The side that the first of some folders is named after that is named after any."""
    return next((side for part in parts if (side := split_of(part))), "")


def side_files(folder: Path, suffixes: Sequence[str]) -> list[tuple[Split, Path]]:
    """Files right in `folder` and the side that they are named after; of a side those of the first suffix there is."""
    found: list[tuple[Split, Path]] = []
    sides: tuple[Split, ...] = ("train", "dev", "test")
    for side in sides:
        for suffix in suffixes:
            files = sorted(p for p in folder.glob(f"*{suffix}") if p.is_file() and split_of(p.stem) == side)
            if files:
                found += [(side, file) for file in files]
                break
    return found


def split_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of `side_files`, training first, `without_tests`."""
    return without_tests(side_files(folder, suffixes))


def without_tests(files: Iterable[tuple[Split, Path]]) -> list[Path]:
    """Files of all sides; ``test`` only where there is no other to be judged by."""
    pairs = list(files)
    judged = any(side == "dev" for side, _ in pairs)
    return [path for side, path in pairs if side != "test" or not judged]


def with_split(read: Iterable[Read], split: Split) -> Iterable[Read]:
    """The same, on a side, where the examples do not say themselves."""
    for item in read:
        yield replace(item, split=split) if isinstance(item, Example) and split and not item.split else item


def class_names(folder: Path) -> list[str]:
    """Names of classes in their order, from ``labels.txt`` or ``classes.txt``; empty where there is neither."""
    for name in ("labels.txt", "classes.txt"):
        if (folder / name).is_file():
            lines = read_text(folder / name).splitlines()
            return [line.strip() for line in lines if line.strip()]
    return []


def named_label(label: str, names: Sequence[str]) -> str:
    """The name of a class that is given by its number, where `names` tell."""
    known = label not in names and label.isdigit() and int(label) < len(names)
    return names[int(label)] if known else label

"""Labelled pictures: a folder a class or a table; pictures with a map of classes beside them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data2vec.data.labelled.example import Example, Read, side_of
from data2vec.data.labelled.files import read_classes
from data2vec.data.manifest import read_text
from data2vec.errors import BadSample, UserError
from data2vec.processing.pixels import IMAGE_SUFFIXES, shown_size

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
_MASKS = ("annotations", "masks", "mask", "labels", "annotation", "SegmentationClass")
_VOID = frozenset({"void", "unlabelled", "unlabeled", "ignore", "ignored"})


def read_image_classes(source: Path, *, label: str = "label") -> Iterator[Read]:
    """Pictures of one class each; see `data2vec.data.labelled.files.read_classes`."""
    return read_classes(source, IMAGE_SUFFIXES, label=label)


@dataclass(frozen=True, slots=True)
class Palette:
    """Classes of label maps.

    Attributes:
        names: by class number.
        ignored: the number of pixels that do not count.
    """

    names: tuple[str, ...]
    ignored: int = 255


def read_palette(folder: Path) -> Palette | None:
    """Classes from ``classes.csv`` (index, name) or ``classes.txt``; a last one called void or unlabelled is ignored.

    Raises:
        UserError: the indices are not 0, 1, 2 ...
    """
    table, lines = folder / "classes.csv", folder / "classes.txt"
    if table.is_file():
        rows = [row for row in csv.reader(read_text(table).splitlines()) if row]
        body = rows if rows[0][0].isdigit() else rows[1:]
        if [row[0] for row in body] != [str(i) for i in range(len(body))] or any(len(row) < 2 for row in body):
            raise UserError(f"{table}: needs rows of index,name with the indices 0, 1, 2 ... in order")
        names = [row[1] for row in body]
    elif lines.is_file():
        names = [line.strip() for line in read_text(lines).splitlines() if line.strip()]
    else:
        return None
    if names and names[-1].lower() in _VOID:
        return Palette(tuple(names[:-1]), len(names) - 1)
    return Palette(tuple(names))


def read_masks(source: Path) -> Iterator[Read]:
    """Pictures and maps of classes of the same name: ``images/training/a.jpg``, ``annotations/training/a.png``.

    Yields:
        Examples with a path as input and the path of a map as target.
    """
    images, masks = (_subfolder(source, names) for names in (_IMAGES, _MASKS))
    known = {path.relative_to(masks).with_suffix(""): path for path in sorted(masks.rglob("*")) if _is_image(path)}
    pictures = [path for path in sorted(images.rglob("*")) if _is_image(path)]
    if not pictures:
        raise UserError(f"{images}: holds no picture")
    for path in pictures:
        name = path.relative_to(images).with_suffix("")
        mask = known.get(name)
        if mask is None:
            yield BadSample(path, f"has no map of classes {masks / name}.png")
        elif problem := _sizes_differ(path, mask):
            yield BadSample(mask, problem)
        else:
            yield Example(str(path), path, mask, side_of(name.parts[:-1]))


def _subfolder(source: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (source / name).is_dir():
            return source / name
    raise UserError(f"{source}: no folder called {' or '.join(names[:3])} in it")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _sizes_differ(image: Path, mask: Path) -> str:
    try:
        with Image.open(image) as picture, Image.open(mask) as labels:
            if (mask_size := shown_size(labels)) == (size := shown_size(picture)):
                return ""
            return f"is {mask_size[0]} x {mask_size[1]} pixels, its picture {size[0]} x {size[1]}"
    except (OSError, UnidentifiedImageError) as error:
        return f"cannot be read with its picture ({error})"

"""Lists of files: a folder, a fairseq tsv, a jsonl, a csv or a zip, read into one form."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from data2vec.errors import BadSample, UserError

PATH_COLUMNS = ("file_name", "path", "file", "filename", "audio", "image", "audio_filepath", "wav", "image_path")
"""Names under which a csv or jsonl may keep its files: Hugging Face folders, NeMo, and what people write."""


@dataclass(frozen=True)
class Manifest:
    """Files in a fixed order; a file's id is its place.

    Attributes:
        root: the folder that `names` are relative to, or the zip that holds them.
        names: posix paths. Sorted when a folder or zip was listed, in the order of the rows otherwise.
        columns: what else the rows of a csv or jsonl say, one list a column, aligned with `names`.
    """

    root: Path
    names: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def zipped(self) -> bool:
        """Whether `names` are members of a zip."""
        return self.root.suffix.lower() == ".zip"

    def describe(self, index: int) -> str:
        """The file's name as shown to people."""
        return f"{self.root}!{self.names[index]}" if self.zipped else str(self.root / self.names[index])

    def open(self, index: int) -> Path | bytes:
        """The file's path, or its bytes where it lies in a zip (which is never unpacked).

        Raises:
            BadSample: the member is damaged.
        """
        if not self.zipped:
            return self.root / self.names[index]
        try:
            return _archive(self.root, os.getpid()).read(self.names[index])
        except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, NotImplementedError, EOFError) as error:
            raise BadSample(self.describe(index), f"cannot be read from the zip ({error})") from error

    def select(self, indices: Collection[int]) -> Manifest:
        """The rows `indices`, in that order."""
        columns = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return Manifest(self.root, [self.names[i] for i in indices], columns)


@lru_cache(maxsize=8)
def _archive(path: Path, pid: int) -> zipfile.ZipFile:
    """One handle a process: a file position shared over a fork would be a race."""
    return zipfile.ZipFile(path)


def read_manifest(source: str | Path, suffixes: Collection[str]) -> Manifest:
    """List the files of a source.

    Args:
        source: a folder (searched through, hidden files left out), a .zip, a fairseq .tsv (first line the root, then
            ``path<TAB>frames``), a .csv with a header or a .jsonl with a column of paths (`PATH_COLUMNS`, relative to
            its folder), or one file.
        suffixes: endings of the files wanted, lower case, in a folder or zip.

    Raises:
        UserError: nothing there, nothing of that kind in it, or a manifest that cannot be read.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if path.is_dir():
        manifest = Manifest(path, sorted(_walk(path, suffixes)))
    elif suffix == ".zip":
        manifest = Manifest(path, sorted(_members(path, suffixes)))
    elif suffix == ".tsv":
        manifest = _read_tsv(path)
    elif suffix in (".csv", ".jsonl"):
        manifest = _read_table(path)
    elif suffix in suffixes:
        manifest = Manifest(path.parent, [path.name])
    else:
        raise UserError(f"{path}: not a folder, .zip, .tsv, .csv or .jsonl, nor a {'/'.join(sorted(suffixes))} file")
    if not manifest.names:
        raise UserError(f"{path}: holds no {', '.join(sorted(suffixes))} file")
    return manifest


def _walk(root: Path, suffixes: Collection[str]) -> Iterator[str]:
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(folder, name).relative_to(root).as_posix()


def _members(path: Path, suffixes: Collection[str]) -> Iterator[str]:
    try:
        names = _archive(path, os.getpid()).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: not a zip that can be read ({error})") from error
    for name in names:
        last = name.rsplit("/", 1)[-1]
        hidden = last.startswith(".") or name.startswith("__MACOSX/")
        if not hidden and os.path.splitext(last)[1].lower() in suffixes:
            yield name


def read_text(path: Path) -> str:
    """A whole UTF-8 file (with or without byte order mark), line ends as line feeds.

    Raises:
        BadSample: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(path, f"is not UTF-8 text (byte {error.start}): convert it") from error
    except OSError as error:
        raise BadSample(path, error.strerror or str(error)) from error


def split_lines(text: str) -> list[str]:
    """Lines, parted at line feeds alone: `str.splitlines` also parts at U+2028 and the like, which texts may hold."""
    return text.removesuffix("\n").split("\n") if text else []


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV, each with the number of its last line; `path` is for messages.

    Raises:
        UserError: a row cannot be read, as one whose quote never ends.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader([*lines, ""])  # the last is a row of no fields, or within a quote that is open
    line = 1
    try:
        for fields in reader:
            if reader.line_num <= len(lines):
                yield reader.line_num, fields
            elif fields:
                raise csv.Error("the file ends within it")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}: line {line} cannot be read ({error}): is a quote left open there?") from error


def _read_tsv(path: Path) -> Manifest:
    root, *lines = split_lines(read_text(path)) or [""]
    if "\t" in root or not root.strip():
        raise UserError(f"{path}: line 1 must be the folder that holds the files ('.' for the manifest's own)")
    folder = path.parent / root.strip()
    if not folder.is_dir():
        raise UserError(f"{path}: line 1 names the folder {folder}, which does not exist")
    names = []
    for number, line in enumerate(lines, start=2):
        name, tab, frames = line.partition("\t")
        if not line.strip():
            continue
        if not tab or not frames.strip().isdigit():
            raise UserError(f"{path}: line {number} must be 'path<TAB>frames', got {line[:80]!r}")
        names.append(name)
    return Manifest(folder, names)


def _read_table(path: Path) -> Manifest:
    columns = read_columns(path)
    key = next((name for name in PATH_COLUMNS if name in columns), None)
    if key is None:
        has, known = ", ".join(columns), ", ".join(PATH_COLUMNS)
        raise UserError(f"{path}: no column of files among {has}; call it one of {known}")
    names = columns.pop(key)
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{path}: row {number} has no {key}")
    return Manifest(path.parent, names, columns)


def read_columns(path: Path) -> dict[str, list[str]]:
    """The rows of a .csv with a header, or of a .jsonl, as columns of strings (missing values are empty).

    Raises:
        UserError: naming the row that is malformed.
    """
    text = read_text(path)
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)
    columns: dict[str, list[str]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([""] * (number - len(column)))
            column.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    longest = max((len(column) for column in columns.values()), default=0)
    return {name: column + [""] * (longest - len(column)) for name, column in columns.items()}


def _json_rows(path: Path, text: str) -> Iterator[dict[str, object]]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number} is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise UserError(f'{path}: line {number} must be an object like {{"path": ...}}')
        yield row


def _csv_rows(path: Path, text: str) -> Iterator[dict[str, object]]:
    rows = csv_rows(path, text)
    _, header = next(rows, (0, []))
    if not header:
        raise UserError(f"{path}: is empty; line 1 must name the columns")
    for number, row in rows:
        if row and len(row) != len(header):
            raise UserError(f"{path}: line {number} has {len(row)} fields, the header {len(header)}")
        if row:
            yield dict(zip(header, row, strict=True))

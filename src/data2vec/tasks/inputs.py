"""What is given on the command line: files, folders of files, texts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from data2vec.data.manifest import read_manifest
from data2vec.errors import UserError


def expand_files(given: str, suffixes: Collection[str]) -> list[str]:
    """A folder as the files in it; anything else as it is. Without `suffixes` inputs are texts.

    Raises:
        UserError: a file that is not there.
    """
    if not suffixes:
        return [given]
    path = Path(given)
    if path.is_dir():
        manifest = read_manifest(path, suffixes)
        return [str(manifest.root / name) for name in manifest.names]
    if not all(Path(part).is_file() for part in given.split("\t")):
        raise UserError(f"{given}: no such file or folder")
    return [given]

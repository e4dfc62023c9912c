"""What is given on the command line: files, folders of files, texts."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from data2vec.data.manifest import read_manifest
from data2vec.errors import BadSample


def expand_files(given: str, suffixes: Collection[str]) -> list[str]:
    """A folder as the files in it; anything else as it is. Without `suffixes` inputs are texts.

    Raises:
        UserError: a file that is not there, a folder without any, or a file where texts are wanted.
    """
    if not suffixes:
        if os.path.isfile(given):
            raise BadSample(given, "is a file, and this model reads texts: give its lines, `data2vec ... - < FILE`")
        return [given]
    if os.path.isdir(given):
        manifest = read_manifest(Path(given), suffixes)
        return [str(manifest.root / name) for name in manifest.names]
    if not all(os.path.isfile(part) for part in given.split("\t")):  # False too where the system refuses the name
        raise BadSample(given, "no such file or folder")
    return [given]

"""What is given on the command line: files, folders of files, texts."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from data2vec.data.manifest import read_manifest
from data2vec.errors import BadSample, UserError


def expand(
    inputs: Iterable[str], suffixes: Collection[str], *, skip_bad: bool = False
) -> tuple[list[str], list[BadSample]]:
    """Inputs with folders as the files in them, and those of which there is nothing; without `suffixes`, texts.

    Raises:
        UserError: one of the latter while `skip_bad` is off, or there are no others.
    """
    names: list[str] = []
    bad: list[BadSample] = []
    for given in inputs:
        try:
            names += expand_files(given, suffixes)
        except BadSample as error:
            if not skip_bad:
                raise
            bad.append(error)
    if not names:
        raise bad[0] if bad else UserError("give files or texts")
    return names, bad


def expand_files(given: str, suffixes: Collection[str]) -> list[str]:
    """A folder as the files in it; anything else as it is. Without `suffixes` inputs are texts.

    Raises:
        BadSample: it is blank, a file that is not there, a folder without any, or a file where texts are wanted.
    """
    if not given.strip():
        raise BadSample(repr(given), "is empty")
    if not suffixes:
        if os.path.isfile(given):
            raise BadSample(given, "is a file, and this model reads texts: give its lines, `data2vec ... - < FILE`")
        return [given]
    if os.path.isdir(given):
        try:
            manifest = read_manifest(Path(given), suffixes)
        except UserError as error:
            raise BadSample(given, str(error).removeprefix(f"{given}: ")) from error
        return [str(manifest.root / name) for name in manifest.names]
    if not all(os.path.isfile(part) for part in given.split("\t")):  # False too where the system refuses the name
        raise BadSample(given, "no such file or folder")
    return [given]

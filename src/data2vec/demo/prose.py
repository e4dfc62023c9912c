"""The English that every Python carries: docstrings of the standard library, and the topics of ``help()``."""

from __future__ import annotations

import ast
import csv
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

# A docstring's class is the chapter of the library reference that its module stands in, in broad strokes.
CHAPTERS: Mapping[str, str] = {
    "concurrency": "asyncio concurrent multiprocessing queue sched selectors subprocess threading",
    "development": "bdb cProfile doctest ensurepip lib2to3 pdb profile pstats pydoc timeit trace tracemalloc unittest "
    "venv",
    "files": "bz2 configparser csv dbm filecmp fileinput glob gzip io lzma os pathlib pickle plistlib posixpath _pyio "
    "shelve shutil tarfile tempfile zipfile zipimport",
    "graphics": "colorsys idlelib tkinter turtle turtledemo",
    "internet": "cgi email ftplib html http imaplib ipaddress json mailbox mimetypes nntplib poplib smtplib socket "
    "socketserver ssl urllib uuid webbrowser wsgiref xml xmlrpc",
    "language": "abc ast codeop contextlib dataclasses dis enum functools importlib inspect pickletools pkgutil "
    "symtable token tokenize traceback types typing warnings weakref",
    "numbers": "_pydecimal bisect calendar _collections_abc collections datetime _pydatetime decimal fractions heapq "
    "numbers random statistics zoneinfo",
}
_ELSEWHERE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

SHORTEST = 120  # characters: a class can hardly be told from less
ALIKE = 24  # docstrings with so many first characters in common are variants of one, and must not be in both splits


def write_prose(folder: Path, *, limit: int | None = None, seed: int = 0) -> None:
    """Write ``train.csv`` and ``dev.csv`` (text, label) and, for pre-training, ``corpus.txt`` with a document a line.

    The corpus is what is left of all the prose when dev is taken out: docstrings of any length and module, and the
    topics, paragraph by paragraph. A fifth of the docstrings of each chapter is dev.

    Args:
        folder: where to.
        limit: only so many docstrings of a chapter.
        seed: of the draw of dev.
    """
    rng = np.random.default_rng(seed)
    chapter_of = {module: chapter for chapter, modules in CHAPTERS.items() for module in modules.split()}
    chapters: dict[str, list[str]] = {}
    corpus = []
    openings = set()
    for module, text in docstrings():
        chapter, opening = chapter_of.get(module), text[:ALIKE].lower()
        if chapter and len(text) >= SHORTEST and opening not in openings:
            openings.add(opening)
            chapters.setdefault(chapter, []).append(text)
        else:
            corpus.append(text)
    tables: dict[str, list[tuple[str, str]]] = {"train": [], "dev": []}
    for chapter, texts in sorted(chapters.items()):
        for place, number in enumerate(rng.permutation(len(texts))[:limit].tolist()):
            tables["dev" if place % 5 == 0 else "train"].append((texts[number], chapter))
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    corpus += [text for text, _ in tables["train"]] + list(topics())
    lines = [" ".join(text.split()) + "\n" for text in corpus[: None if limit is None else 10 * limit]]
    (folder / "corpus.txt").write_text("".join(lines), encoding="utf-8")


def docstrings() -> Iterator[tuple[str, str]]:
    """(top-level module, text) of every docstring of the standard library, each text once; nothing is imported."""
    seen = set()
    for module, file in _modules(Path(sysconfig.get_path("stdlib"))):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError):  # templates and broken links
            continue
        for text in filter(None, map(_docstring, _definitions(tree))):
            if text not in seen:
                seen.add(text)
                yield module, text


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Top-level name and file of the modules below `root`, in a fixed order."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in _ELSEWHERE)
        for name in sorted(names):
            if name.endswith(".py"):
                file = Path(folder, name)
                yield file.relative_to(root).parts[0].removesuffix(".py"), file


def _definitions(tree: ast.Module) -> Iterator[_Documented]:
    """The module, its classes and functions, those under an ``if`` or ``try`` too."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, _Documented):
            yield node
        todo += [
            child for name in ("body", "orelse", "handlers") for child in reversed(getattr(node, name, None) or ())
        ]


def _docstring(node: _Documented) -> str:
    return (ast.get_docstring(node) or "").strip()


def topics() -> Iterator[str]:
    """The paragraphs of what ``help("LOOPING")`` and its like print."""
    try:
        from pydoc_data.topics import topics as pages
    except ImportError:  # a Python cut down for a container
        return
    for name in sorted(pages):
        yield from (part.strip() for part in pages[name].split("\n\n") if len(part.strip()) >= SHORTEST)

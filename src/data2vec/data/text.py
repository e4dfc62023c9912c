"""Text for training: documents from files, tokenized once into a flat file, served as rows of tokens."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import TextIO

import numpy as np
from tokenizers import Tokenizer

from data2vec.data.audio import Sample
from data2vec.data.config import TextDataConfig
from data2vec.data.manifest import Manifest, read_columns, read_manifest
from data2vec.data.sampler import Ints
from data2vec.data.skips import Skipped
from data2vec.errors import BadSample, UserError
from data2vec.processing.bpe import load_bpe, special_ids, train_bpe

TEXT_SUFFIXES = frozenset({".txt"})
_CHUNK = 1024
"""Documents tokenized at once."""


class Documents:
    """The documents of a source, readable again and again.

    Attributes:
        skipped: files that are not text, filled while reading.
    """

    def __init__(self, source: str | Path, config: TextDataConfig) -> None:
        self.path = Path(source)
        self.config = config
        self.skipped: list[Skipped] = []
        self.table = self.path.is_file() and self.path.suffix.lower() in (".csv", ".jsonl")
        if self.table:
            self.files = Manifest(self.path.parent, [self.path.name])
        else:
            self.files = read_manifest(self.path, TEXT_SUFFIXES)
        per_file = "file" if self.path.is_dir() or self.files.zipped else "line"
        self.ends = per_file if config.documents == "auto" else config.documents

    def __iter__(self) -> Iterator[str]:
        """Non-empty documents, stripped at both ends; of a file that turns out not to be text, those before that."""
        self.skipped = []
        for index in range(len(self.files)):
            try:
                pieces = self._column() if self.table else self._pieces(index)
                found = False
                for piece in pieces:
                    if piece := piece.strip():
                        found = True
                        yield piece.lower() if self.config.lowercase else piece
                if not found:
                    raise BadSample(self.files.describe(index), "holds no text")
            except BadSample as error:
                self.skipped.append(Skipped.of(error))

    def fingerprint(self) -> list[list[str | int]]:
        """Names, sizes and times of the files: another fingerprint means that the text may have changed."""
        rows: list[list[str | int]] = []
        for index in range(len(self.files)):
            status = os.stat(self.files.root if self.files.zipped else self.files.root / self.files.names[index])
            rows.append([self.files.describe(index), status.st_size, status.st_mtime_ns])
        return rows

    def _column(self) -> list[str]:
        columns = read_columns(self.path)
        if self.config.column not in columns:
            raise UserError(f"{self.path}: no column data.column={self.config.column!r} among {', '.join(columns)}")
        return columns[self.config.column]

    def _pieces(self, index: int) -> Iterator[str]:
        """One file's documents; a file of lines is never in memory as a whole."""
        opened = self.files.open(index)
        try:
            with _reader(opened) as file:
                if self.ends == "file":
                    yield file.read()
                elif self.ends == "line":
                    yield from file
                else:
                    for filled, lines in groupby(file, key=lambda line: bool(line.strip())):
                        if filled:
                            yield "".join(lines)
        except UnicodeDecodeError as error:
            raise BadSample(self.files.describe(index), "is not UTF-8 text: convert it") from error
        except OSError as error:
            raise BadSample(self.files.describe(index), error.strerror or str(error)) from error


class TextData:
    """A map from sample ids to rows of tokens, read from a memory map.

    Attributes:
        tokenizer: of `processing.bpe`; save it beside the model.
        tokens: (N,) all documents' tokens, each document ended by ``</s>``.
        starts, stops: (samples,) the part of `tokens` that follows a row's ``<s>``.
        skipped: files that are not text.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: np.ndarray, ends: Ints, config: TextDataConfig) -> None:
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.config = config
        self.bos = special_ids(tokenizer)["bos"]
        self.starts, self.stops = rows(ends, config)
        self.skipped: list[Skipped] = []
        self.total = len(self.starts)

    @classmethod
    def open(cls, source: str | Path, config: TextDataConfig, cache: Path) -> TextData:
        """Read, train a BPE where none is given, and tokenize; all of it once: `cache` keeps the result.

        Args:
            source: a .txt, a folder or zip of .txt, or a .csv or .jsonl with a column of text.
            config: what to make of it.
            cache: folder for the tokenizer and the tokens.

        Raises:
            UserError: there is no text, or the tokenizer cannot be used.
        """
        documents = Documents(source, config)
        key = {
            "files": documents.fingerprint(),
            "ends": documents.ends,
            "config": {k: v for k, v in asdict(config).items() if k in _TOKEN_FIELDS},
            "tokenizer": _hash(config.tokenizer),
        }
        folder = cache / f"text-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"
        if not (folder / "done.json").is_file():
            tokenizer = load_bpe(config.tokenizer) if config.tokenizer else train_bpe(documents, config.vocab_size)
            special_ids(tokenizer)
            tokenize(documents, tokenizer, folder)
        facts = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        tokens = np.memmap(folder / "tokens.bin", dtype=np.dtype(facts["dtype"]), mode="r", shape=(facts["tokens"],))
        data = cls(load_bpe(folder), tokens, np.load(folder / "ends.npy"), config)
        data.skipped = [Skipped(*entry) for entry in facts["skipped"]]
        data.total = len(documents.files) if data.skipped else len(data.starts)
        return data

    def sizes(self, epoch: int) -> Ints:
        """(samples,) tokens of each row, ``<s>`` included."""
        return self.stops - self.starts + 1

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """One row.

        Returns:
            input_ids: (length,) int64, ``<s>`` first.
        """
        body = self.tokens[self.starts[index] : self.stops[index]]
        row = np.empty(len(body) + 1, dtype=np.int64)
        row[0], row[1:] = self.bos, body
        return {"input_ids": row}


_TOKEN_FIELDS = ("column", "vocab_size", "lowercase")


def rows(ends: Ints, config: TextDataConfig) -> tuple[Ints, Ints]:
    """Where each row begins and stops in the flat tokens.

    Args:
        ends: (documents,) where each document stops, its ``</s>`` included.
        config: `block_size` and `blocks`. A stream leaves out its last, partial row, unless it is the only one.
    """
    width = config.block_size - 1
    if config.blocks == "stream":
        total = int(ends[-1])
        starts = np.arange(0, max(1, total // width), dtype=np.int64) * width
        return starts, np.minimum(starts + width, total)
    begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
    if config.blocks == "document":
        return begins, np.minimum(ends, begins + width)
    parts = -(-(ends - begins) // width)
    document = np.repeat(np.arange(len(ends)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = begins[document] + part * width
    return starts, np.minimum(starts + width, ends[document])


def tokenize(documents: Documents, tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokens.bin``, ``ends.npy``, ``tokenizer.json`` and, last, ``done.json``; one chunk in memory at a time.

    Raises:
        UserError: no file holds text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    eos = special_ids(tokenizer)["eos"]
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4")
    ends: list[Ints] = []
    total = 0
    own = str(os.getpid())
    with open(folder / f"tokens.{own}", "wb") as file:
        stream = iter(documents)
        while chunk := list(islice(stream, _CHUNK)):
            encoded = [code.ids for code in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
            flat = np.fromiter((token for ids in encoded for token in (*ids, eos)), dtype=dtype)
            file.write(flat.tobytes())
            ends.append(total + np.cumsum([len(ids) + 1 for ids in encoded]))
            total += len(flat)
    if not total:
        reasons = "; ".join(f"{source} {reason}" for source, reason in documents.skipped[:3])
        raise UserError(f"{documents.path}: no text to train on ({reasons})")
    os.replace(folder / f"tokens.{own}", folder / "tokens.bin")
    np.save(folder / f"ends.{own}.npy", np.concatenate(ends))
    os.replace(folder / f"ends.{own}.npy", folder / "ends.npy")
    tokenizer.save(str(folder / f"tokenizer.{own}"))
    os.replace(folder / f"tokenizer.{own}", folder / "tokenizer.json")
    facts = {"dtype": dtype.str, "tokens": total, "documents": sum(map(len, ends)), "skipped": documents.skipped}
    (folder / f"done.{own}").write_text(json.dumps(facts), encoding="utf-8")
    os.replace(folder / f"done.{own}", folder / "done.json")


def _reader(opened: Path | bytes) -> TextIO:
    if isinstance(opened, Path):
        return open(opened, encoding="utf-8-sig")
    return io.TextIOWrapper(io.BytesIO(opened), encoding="utf-8-sig")


def _hash(tokenizer: str | None) -> str | None:
    if tokenizer is None:
        return None
    path = Path(tokenizer)
    files = [path] if path.is_file() else [path / name for name in ("tokenizer.json", "vocab.json", "merges.txt")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()

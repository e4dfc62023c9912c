"""Labelled speech: one class a clip, transcripts, who speaks when, pairs of recordings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, groupby
from pathlib import Path

from data2vec.data.labelled.example import (
    Example,
    Read,
    Turn,
    side_files,
    side_of,
    split_files,
    split_of,
    with_split,
)
from data2vec.data.labelled.files import file_of, file_tables, read_classes
from data2vec.data.labelled.tables import Row, read_rows, require_columns
from data2vec.data.manifest import read_manifest, read_text, split_lines
from data2vec.errors import BadSample, UserError
from data2vec.processing.waveform import AUDIO_SUFFIXES

_TEXT_COLUMNS = ("transcription", "text", "transcript", "sentence", "normalized_text")


def read_audio_classes(source: Path, *, label: str = "label") -> Iterator[Read]:
    """Clips of one class each; see `data2vec.data.labelled.files.read_classes`."""
    return read_classes(source, AUDIO_SUFFIXES, label=label)


# Transcripts


def read_transcripts(source: Path, *, column: str = "", phones: bool = False) -> Iterator[Read]:
    """Recordings with what is said.

    Args:
        source: a fairseq ``.tsv`` with ``.wrd``, ``.ltr`` or ``.phn`` beside it; a .csv or .jsonl with columns of files
            and of text; LJSpeech's ``metadata.csv``; a data set of `datasets`; or a folder that holds one of these, or
            LibriSpeech's ``*.trans.txt``.
        column: of a table, the text; found by its usual names if empty.
        phones: read ``.phn``: units separated by spaces.

    Yields:
        Examples with a path as input and a text as target (phones with one space between).
    """
    manifests = [source] if source.suffix == ".tsv" else split_files(source, (".tsv",)) if source.is_dir() else []
    manifests = [path for path in manifests if _beside(path, phones)]
    if manifests:
        for path in manifests:
            yield from with_split(_fairseq(path, phones), split_of(path.stem))
        return
    if phones:
        raise UserError(f"{source}: no .tsv with a .phn beside it")
    tables = file_tables(source)
    for table in tables:
        rows = _ljspeech(table) if _is_ljspeech(table) else _table(table, column)
        yield from with_split(rows, split_of(table.stem))
    if not tables:
        yield from _librispeech(source)


def _beside(manifest: Path, phones: bool) -> Path | None:
    endings = (".phn",) if phones else (".wrd", ".ltr")
    return next((manifest.with_suffix(e) for e in endings if manifest.with_suffix(e).is_file()), None)


def _fairseq(path: Path, phones: bool) -> Iterator[Read]:
    manifest = read_manifest(path, AUDIO_SUFFIXES)
    labels = _beside(path, phones)
    assert labels is not None
    lines = split_lines(read_text(labels))
    if len(lines) != len(manifest):
        raise UserError(f"{labels}: {len(lines)} lines for the {len(manifest)} files of {path.name}")
    for index, line in enumerate(lines):
        text = line.replace(" ", "").replace("|", " ") if labels.suffix == ".ltr" else line
        file = manifest.root / manifest.names[index]
        yield _transcribed(f"{labels}: line {index + 1}", file, text)


def _transcribed(source: str, file: Path, text: str) -> Read:
    if not file.is_file():
        return BadSample(source, f"is about {file}, and there is no such file")
    if not text.strip():
        return BadSample(source, f"{file} has an empty transcript")
    return Example(str(file), file, " ".join(text.split()), row=source)


def _table(table: Path, column: str) -> Iterator[Read]:
    for row in read_rows(table):
        if isinstance(row, BadSample):
            yield row
            continue
        column = column or next((usual for usual in _TEXT_COLUMNS if usual in row.values), "")
        yield _row(row, column or _TEXT_COLUMNS[0])


def _row(row: Row, column: str) -> Read:
    try:
        require_columns(row, [column])
        file = file_of(row)
        text = str(row.values[column] or "")
        if not text.strip():
            raise BadSample(row.source, f"{Path(str(file)).name} has an empty transcript")
        return Example(str(file), file, " ".join(text.split()), row.split(), row.source)
    except BadSample as error:
        return error


def _is_ljspeech(table: Path) -> bool:
    return table.suffix == ".csv" and read_text(table).split("\n", 1)[0].count("|") == 2


def _ljspeech(table: Path) -> Iterator[Read]:
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        fields = line.split("|")
        if len(fields) != 3:
            yield BadSample(f"{table}: line {number}", "must be id|text|normalised text")
        else:
            yield _transcribed(f"{table}: line {number}", table.parent / "wavs" / f"{fields[0]}.wav", fields[2])


def _librispeech(source: Path) -> Iterator[Read]:
    lists = sorted(source.rglob("*.trans.txt"))
    if not lists:
        raise UserError(f"{source}: no .tsv with .wrd or .ltr, no metadata.csv or manifest.jsonl, no *.trans.txt")
    for path in lists:
        split = side_of(path.relative_to(source).parts)
        files = {file.stem: file for file in path.parent.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            name, _, text = line.partition(" ")
            where = f"{path}: line {number}"
            if name not in files:
                yield BadSample(where, f"no recording {name!r} beside it")
            else:
                yield from with_split([_transcribed(where, files[name], text)], split)


# Turns

Span = tuple[float, float]
"""Seconds (from, to)."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Who speaks when in a recording (or: which phone is said).

    Attributes:
        turns: in order of their start.
        span: what is labelled; None: all.
        gaps: what within it is not.
    """

    turns: tuple[Turn, ...]
    span: Span | None = None
    gaps: tuple[Span, ...] = ()


def read_timelines(source: Path, *, phones: bool = False) -> Iterator[Read]:
    """Recordings with turns: RTTM (with UEM where there is one), or TIMIT's aligned phones.

    Args:
        source: an ``.rttm``, or a folder with some named after train and dev; recordings lie beside them or in
            ``audio``. Or a folder with one a recording, anywhere in it (in folders named after train and dev, or not),
            as are the recordings.
        phones: a folder with a ``.phn`` beside every recording (samples from, to, phone).

    Yields:
        Examples with a path as input and a `Timeline` as target.
    """
    if phones:
        yield from _aligned(source)
        return
    sides = [source] if source.is_file() else split_files(source, (".rttm",))
    tree = [] if sides else sorted(source.rglob("*"))
    files = sides or [file for file in tree if file.suffix == ".rttm"]
    if not files or files[0].suffix != ".rttm":
        raise UserError(f"{source}: no .rttm")
    anywhere = _recordings(tree)
    for folder, group in groupby(files, key=lambda file: file.parent):
        audio = anywhere | _recordings(chain(folder.iterdir(), (folder / "audio").glob("*")))
        for file in group:
            side = split_of(file.stem) or ("" if sides else side_of(folder.relative_to(source).parts))
            yield from with_split(_rttm(file, audio), side)


def _recordings(files: Iterable[Path]) -> dict[str, Path]:
    """The recordings among some files, by their names as RTTM writes them."""
    return {_joined(file.stem): file for file in sorted(files) if file.suffix.lower() in AUDIO_SUFFIXES}


def _rttm(path: Path, audio: dict[str, Path]) -> Iterator[Read]:
    turns: dict[str, list[Turn]] = defaultdict(list)
    uems = read_uem(path.with_suffix(".uem"))
    for name in uems:
        turns[name] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";") or fields[0] != "SPEAKER":
            continue
        try:
            start, length = _seconds(fields[3]), _seconds(fields[4])
            turns[fields[1]].append(Turn(start, start + length, fields[7]))
        except (IndexError, ValueError):
            form = "'SPEAKER file channel start length <NA> <NA> name', seconds from 0 on"
            yield BadSample(f"{path}: line {number}", f"must be {form}")
    for name, found in turns.items():
        if name in audio:
            timeline = Timeline(tuple(sorted(found)), *_outline(uems.get(name, [])))
            yield Example(str(audio[name]), audio[name], timeline, row=str(path))
        else:
            yield BadSample(path, f"speaks of {name!r}, and there is no such recording beside it, nor in audio/ there")


def _seconds(text: str) -> float:
    if 0 <= (value := float(text)) < math.inf:
        return value
    raise ValueError(text)


def _outline(spans: list[Span]) -> tuple[Span | None, tuple[Span, ...]]:
    """From the first second that is labelled to the last, and what between is not."""
    if not spans:
        return None, ()
    spans = sorted(spans)
    ends = list(accumulate((stop for _, stop in spans), max))
    gaps = tuple((end, start) for end, (start, _) in zip(ends, spans[1:], strict=False) if start > end)
    return (spans[0][0], ends[-1]), gaps


def read_uem(path: Path) -> dict[str, list[Span]]:
    """File -> what is labelled of it; empty where there is no such file."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for number, line in enumerate(read_text(path).splitlines() if path.is_file() else [], start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            name, _, start, stop = line.split()
            spans[name].append((_seconds(start), _seconds(stop)))
        except ValueError as error:
            raise UserError(f"{path}: line {number} must be 'file channel from to', seconds from 0 on") from error
    return spans


def write_rttm(path: Path, timelines: dict[str, list[Turn]]) -> None:
    """Write turns as RTTM: one line each; its fields have no spaces, nor have names then."""
    lines = (
        f"SPEAKER {_joined(name)} 1 {start:.3f} {end - start:.3f} <NA> <NA> {_joined(label)} <NA> <NA>\n"
        for name, turns in timelines.items()
        for start, end, label in turns
    )
    path.write_text("".join(lines), encoding="utf-8")


def _joined(name: str) -> str:
    return "_".join(name.split())


def _aligned(source: Path) -> Iterator[Read]:
    """TIMIT: the split is that of ``train.tsv``, ``dev.tsv`` and ``test.tsv`` where there are any."""
    sides = {}
    for side, path in side_files(source, (".tsv",)):
        manifest = read_manifest(path, AUDIO_SUFFIXES)
        sides.update({(manifest.root / name).resolve(): side for name in manifest.names})
    files = [path for path in sorted(source.rglob("*.phn")) if path.with_suffix(".wav").is_file()]
    if not files:
        raise UserError(f"{source}: no .phn beside a .wav of the same name")
    for path in files:
        wav, turns, bad = path.with_suffix(".wav"), [], None
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            fields = line.split()
            if len(fields) == 3 and fields[0].isdigit() and fields[1].isdigit():
                turns.append(Turn(int(fields[0]) / 16_000, int(fields[1]) / 16_000, fields[2]))
            else:
                bad = BadSample(f"{path}: line {number}", "must be 'first-sample last-sample phone'")
        yield bad or Example(str(wav), wav, Timeline(tuple(turns)), sides.get(wav.resolve(), ""))


# Trials


def read_trials(path: Path) -> Iterator[Read]:
    """Pairs of recordings: lines of ``1|0 fileA fileB``, 1 = the same speaker; files relative to the list.

    Yields:
        Examples with a pair of paths as input and a bool as target.
    """
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields, where = line.split(), f"{path}: line {number}"
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            yield BadSample(where, "must be '1 fileA fileB' or '0 fileA fileB'")
            continue
        pair = tuple(path.parent / name for name in fields[1:])
        missing = next((file for file in pair if not file.is_file()), None)
        if missing is not None:
            yield BadSample(where, f"no such file {missing}")
        else:
            yield Example(where, pair, fields[0] == "1", "dev")

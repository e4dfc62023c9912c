"""Labelled text: sentences and pairs, tagged words, questions, choices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from data2vec.data.labelled.arrow import arrow_tables, is_arrow
from data2vec.data.labelled.example import (
    Example,
    Read,
    class_names,
    named_label,
    side_of,
    split_files,
    split_of,
    with_split,
)
from data2vec.data.labelled.tables import Row, first_fields, read_rows, require_columns
from data2vec.data.manifest import read_manifest, read_text
from data2vec.errors import BadSample, UserError

_TEXTS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("sentence",),
    ("text",),
)
_LABELS = ("label", "labels", "score", "gold_label", "similarity", "category")
_TAGS = ("ner_tags", "pos_tags", "tags", "labels")
_COLA = ("source", "label", "mark", "sentence")
_CONLLU_COLUMNS = 10
_STSB = ("genre", "file", "year", "id", "score", "sentence1", "sentence2")


def _files(source: Path, suffixes: Sequence[str]) -> list[Path]:
    """The file itself, or those of a folder that are named after a side; or the only one that there is."""
    if tables := arrow_tables(source):
        return tables
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    named = split_files(source, suffixes)
    every = sorted(p for p in source.iterdir() if p.suffix.lower() in suffixes)
    if named or len(every) == 1:
        return named or every
    raise UserError(
        f"{source}: no file named after train or dev with {', '.join(suffixes)}"
        + (f"; name one of {', '.join(p.name for p in every[:4])}" if every else "")
    )


def _from_files(source: Path, suffixes: Sequence[str], read: Callable[[Path], Iterable[Read]]) -> Iterator[Read]:
    for file in _files(source, suffixes):
        yield from with_split(read(file), split_of(file.stem))


# Sentences and pairs


def read_texts(
    source: Path, *, texts: Sequence[str] = (), label: str = "", separator: str = "", labelled: bool = True
) -> Iterator[Read]:
    """Texts and pairs of texts with a label, a value or several labels.

    Reads GLUE's tsv (CoLA's without header too), the STS benchmark's own files, CSV and JSON lines.

    Args:
        source: a file, or a folder with files named after train and dev.
        texts: the one or two columns of text; found by their usual names if empty.
        label: the column of the label, likewise.
        separator: what parts several labels of one text ("a,b"); JSON lists need none.
        labelled: False reads texts alone.

    Yields:
        Examples with a str or a pair as input; a str, or a tuple of str where there are several labels, as target.
    """
    names = class_names(source if source.is_dir() else source.parent)

    def read(file: Path) -> Iterator[Read]:
        for row in read_rows(file, _layout(file)):
            yield row if isinstance(row, BadSample) else _text_example(row, texts, label, separator, labelled, names)

    return _from_files(source, (".tsv", ".csv", ".jsonl"), read)


def _layout(path: Path) -> tuple[str, ...] | None:
    """Column names of published tables that have no header."""
    if path.suffix.lower() not in (".tsv", ".csv"):
        return None
    fields = first_fields(path)
    if len(fields) == 4 and fields[1] in ("0", "1") and fields[2] in ("", "*"):
        return _COLA
    if len(fields) >= 7 and fields[2][:4].isdigit() and _is_number(fields[4]):
        return _STSB
    return None


def _text_example(
    row: Row, texts: Sequence[str], label: str, separator: str, labelled: bool, names: Sequence[str]
) -> Read:
    columns = texts or next((usual for usual in _TEXTS if all(name in row.values for name in usual)), ("text",))
    column = label or next((usual for usual in _LABELS if usual in row.values), "label")
    try:
        require_columns(row, [*columns, *([column] if labelled else [])])
        given = tuple(row.text(name) for name in columns)
        target = _target(row, column, separator, names) if labelled else None
        return Example(row.source, given[0] if len(given) == 1 else given, target, row.split())
    except BadSample as error:
        return error


def _target(row: Row, column: str, separator: str, names: Sequence[str]) -> str | tuple[str, ...]:
    value = row.values[column]
    if isinstance(value, list):
        return tuple(named_label(item, names) for item in _each(row, column, value))
    if separator:
        return tuple(item.strip() for item in row.text(column, "").split(separator) if item.strip())
    return named_label(row.text(column).strip(), names)


def _each(row: Row, what: str, values: Sequence[Any]) -> list[str]:
    """Each value of a list, which must be there."""
    listed = row._replace(values={f"{what} {place}": value for place, value in enumerate(values, start=1)})
    return [listed.text(name) for name in listed.values]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Tagged words


def read_tagged(source: Path) -> Iterator[Read]:
    """Sentences of tagged words (CoNLL): one word a line, an empty line between sentences.

    The word is the first column and the tag the last; where the first column counts words, in most sentences of a file,
    the word is the second. Of CoNLL-U's ten columns, the tag is the fourth (UPOS). Lines that begin with "# " before a
    sentence are comments. Of a data set of `datasets`, the columns ``tokens`` and ``ner_tags`` (``tags``, ``labels``
    ...).

    Yields:
        Examples with a tuple of words as input and one of tags as target.
    """
    return _from_files(source, (".conll", ".conllu", ".txt", ".tsv", ".iob", ".bio"), _conll)


def _conll(path: Path) -> Iterator[Read]:
    if is_arrow(path):
        yield from (_tagged_row(row) for row in read_rows(path) if isinstance(row, Row))
        return
    sentences = list(_sentences(read_text(path).split("\n")))
    columns = _columns(sentences)
    for lines in sentences:
        yield _sentence(path, lines, columns)


class _Line(NamedTuple):
    """A word with what is said of it; `number` counts lines from 1."""

    number: int
    fields: list[str]

    @property
    def part(self) -> bool:
        """Whether it is numbered as CoNLL-U numbers what is no word: 1-2, 1.1."""
        return re.fullmatch(r"\d+[-.]\d+", self.fields[0]) is not None


class _Columns(NamedTuple):
    """The columns of a word and of its tag, and how many there must be."""

    word: int
    tag: int
    least: int


def _sentences(lines: Sequence[str]) -> Iterator[list[_Line]]:
    """The lines of each sentence, without comments."""
    found: list[_Line] = []
    width = _spaced_columns(lines)
    for number, line in enumerate([*lines, ""], start=1):
        fields = line.split("\t") if "\t" in line.strip() else line.split()
        if not line.strip() or fields[0] == "-DOCSTART-":
            if found:
                yield found
            found = []
        elif found or not line.startswith("# ") or len(fields) == width:
            found.append(_Line(number, fields))


def _spaced_columns(lines: Iterable[str]) -> int:
    """How many columns spaces part: there, "# O" is a word and its tag. 0 where tabs part them."""
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("# ")), "")
    return 0 if "\t" in first else len(first.split())


def _columns(sentences: Sequence[Sequence[_Line]]) -> _Columns:
    """Told once from all sentences: one alone may well begin with the word "1"."""
    counting = [lines for lines in sentences if _counts(lines)]
    if 2 * len(counting) <= len(sentences):
        return _Columns(0, -1, 2)
    conllu = all(len(lines[0].fields) == _CONLLU_COLUMNS for lines in counting)
    return _Columns(1, 3, _CONLLU_COLUMNS) if conllu else _Columns(1, -1, 3)


def _counts(lines: Sequence[_Line]) -> bool:
    """Whether the first of three columns or more counts the words, from 0 or 1."""
    words = [line.fields for line in lines if not line.part]
    numbers = [str(number) for number in range(len(words) + 1)]
    wide = bool(words) and all(len(fields) >= 3 for fields in words)
    return wide and [fields[0] for fields in words] in (numbers[:-1], numbers[1:])


def _tagged_row(row: Row) -> Read:
    tag = next((usual for usual in _TAGS if usual in row.values), _TAGS[0])
    require_columns(row, ["tokens", tag])
    words, tags = row.values["tokens"] or [], row.values[tag] or []
    if not words or len(words) != len(tags):
        return BadSample(row.source, f"has {len(words)} tokens and {len(tags)} {tag}")
    if None in words or None in tags:
        return BadSample(row.source, "needs a word and a tag in each place")
    return Example(row.source, tuple(words), tuple(map(str, tags)))


def _sentence(path: Path, lines: Sequence[_Line], columns: _Columns) -> Read:
    counted = columns.word > 0
    words = [line for line in lines if not (counted and line.part)]
    for number, fields in words:
        if len(fields) < columns.least or not fields[columns.word] or not fields[columns.tag].strip():
            return BadSample(f"{path}: line {number}", "needs a word and a tag")
    source = f"{path}: line {(words or lines)[0].number}"
    if counted and not _counts(words):
        return BadSample(source, "the first column must count this sentence's words, as it does in others")
    tags = tuple(fields[columns.tag].strip() for _, fields in words)
    return Example(source, tuple(fields[columns.word] for _, fields in words), tags)


# Questions


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a text; `id` is what predictions are filed under."""

    id: str
    question: str
    context: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of a context: its text and its first character."""

    text: str
    start: int


def read_questions(source: Path) -> Iterator[Read]:
    """SQuAD 1.1 and 2.0 JSON; or its columns in a data set of `datasets`.

    Yields:
        Examples with a `Question` as input and a tuple of accepted `Answer` as target (empty: there is none).
    """
    return _from_files(source, (".json",), _squad)


def _squad(path: Path) -> Iterator[Read]:
    if is_arrow(path):
        yield from _squad_rows(path)
        return
    try:
        data = json.loads(read_text(path))
        articles = data["data"]
        found = [
            (f"{path}: data[{a}].paragraphs[{p}].qas[{q}]", paragraph["context"], qa)
            for a, article in enumerate(articles)
            for p, paragraph in enumerate(article["paragraphs"])
            for q, qa in enumerate(paragraph["qas"])
        ]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not JSON ({error})") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is not in SQuAD's form (data, paragraphs, context, qas): {error} is missing"
        ) from error
    seen: set[str] = set()
    for source, context, qa in found:
        yield _question(source, context, qa, seen)


def _squad_rows(path: Path) -> Iterator[Read]:
    seen: set[str] = set()
    for row in read_rows(path):
        assert isinstance(row, Row)
        require_columns(row, ["id", "question", "context", "answers"])
        yield _question(row.source, row.values["context"], row.values, seen)


def _question(source: str, context: Any, qa: Any, seen: set[str]) -> Read:
    if not isinstance(qa, dict):
        return BadSample(source, "must be an object with an id, a question and answers")
    question: Any = qa.get("question")
    name = qa.get("id")
    good = {"id": _is_text(name) or isinstance(name, int), "question": _is_text(question), "context": _is_text(context)}
    if not all(good.values()):
        return BadSample(source, f"has no {' and no '.join(key for key in good if not good[key])} that is text")
    if str(name) in seen:
        return BadSample(source, f"has the id {name!r} of another question")
    seen.add(str(name))
    try:
        return Example(source, Question(str(name), question, context), _answers(source, context, qa.get("answers")))
    except BadSample as error:
        return error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _answers(source: str, context: str, given: Any) -> tuple[Answer, ...]:
    """Those accepted: a list of objects, or an object of lists as `datasets` keeps them; null is none."""
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list | None) or not all(isinstance(answer, dict) for answer in given or ()):
        raise BadSample(source, 'answers must be a list of objects {"text": ..., "answer_start": ...}')
    found = []
    for answer in given or ():
        text, start = answer.get("text"), answer.get("answer_start")
        if not _is_text(text) or not isinstance(start, int) or start < 0 or not context.startswith(text, start):
            raise BadSample(source, f"the answer {text!r} is not in its context at character {start}")
        found.append(Answer(text, start))
    return tuple(found)


# Choices


@dataclass(frozen=True, slots=True)
class Choices:
    """The beginning of a text (or a question), and ways to go on."""

    prompt: str
    options: tuple[str, ...]


def read_choices(source: Path) -> Iterator[Read]:
    """Multiple choice: SWAG's CSV or JSON lines, or CommonsenseQA's JSON lines.

    Yields:
        Examples with `Choices` as input and the number of the right one as target.
    """

    def read(file: Path) -> Iterator[Read]:
        for row in read_rows(file):
            yield row if isinstance(row, BadSample) else _choices(row)

    return _from_files(source, (".csv", ".jsonl"), read)


def _choices(row: Row) -> Read:
    try:
        return _commonsense(row) if "choices" in row.values else _swag(row)
    except BadSample as error:
        return error


def _swag(row: Row) -> Example:
    require_columns(row, ["sent1", "sent2", "ending0", "ending1", "label"])
    endings = [name for name in row.values if name.startswith("ending") and name[6:].isdigit()]
    begin = row.text("sent2", "")
    options = tuple(f"{begin} {row.text(name)}".strip() for name in sorted(endings, key=lambda name: int(name[6:])))
    label = row.text("label")
    if not label.isdecimal() or int(label) >= len(options):
        raise BadSample(row.source, f"label {label!r} is none of 0 to {len(options) - 1}")
    return Example(row.source, Choices(row.text("sent1"), options), int(label))


def _commonsense(row: Row) -> Example:
    labels, texts = _options(row)
    require_columns(row, ["question", "answerKey"])
    if isinstance(question := row.values["question"], dict):  # as in the original files
        row = row._replace(values=row.values | {"question": question.get("stem")})
    key = row.text("answerKey")
    if key not in labels:
        raise BadSample(row.source, f"answerKey {key!r} is none of {', '.join(labels)}")
    return Example(row.source, Choices(row.text("question"), tuple(texts)), labels.index(key))


def _options(row: Row) -> tuple[list[str], list[str]]:
    """Labels and texts of the choices."""
    choices = row.values["choices"]
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):  # as in the original files
        choices = {name: [choice.get(name) for choice in choices] for name in ("label", "text")}
    labels, texts = (choices.get("label"), choices.get("text")) if isinstance(choices, dict) else (None, None)
    if not isinstance(labels, list) or not isinstance(texts, list):
        raise BadSample(row.source, 'choices must be an object {"label": ["A", ...], "text": [...]}, in JSON lines')
    if len(labels) != len(texts) or len(texts) < 2:
        raise BadSample(row.source, "choices must have as many labels as texts, two at least")
    return list(map(str, labels)), _each(row, "choice", texts)


# Plain text

_TEXT_SUFFIXES = frozenset({".txt", ".tokens", ".text", ".md"})
_PASSAGE = 2000
"""Characters that make a passage: paragraphs are joined until there are so many; lines, until twice as many."""


def read_passages(source: Path, share: float) -> Iterator[Read]:
    """Passages of plain text.

    Args:
        source: a text file, or a folder of them (within train and valid, or named after a side); or a data set of
            `datasets` with a column ``text``, a passage a row.
        share: of the passages, held out at the end of files, where no file is named after a side to be judged by. Where
            each file is one passage, none is on a side: `divide` draws among them.

    Yields:
        Examples with a text as input and as target.
    """
    if tables := arrow_tables(source):
        for table in tables:
            yield from with_split(_text_rows(table), split_of(table.stem))
        return
    manifest = read_manifest(source, _TEXT_SUFFIXES)
    paths = [manifest.root / name for name in manifest.names]
    sides = [side_of(Path(part).stem for part in Path(name).parts) for name in manifest.names]
    files = [_passages(path) for path in paths]
    counts = [0 if side else len(passages) for side, passages in zip(sides, files, strict=True)]
    parted = not {"dev", "test"} & {*sides} and max(counts) > 1
    for path, side, passages, held in zip(paths, sides, files, _held_out(counts, share), strict=True):
        for place, (line, text) in enumerate(passages):
            own = "dev" if place >= len(passages) - held else "train"
            yield Example(f"{path}: line {line}", text, text, split_of(side or (own if parted else "")))


def _held_out(counts: Sequence[int], share: float) -> list[int]:
    """How many of each file's passages are held out: of all files together `share`, one at least."""
    held = [max(1, round(share * total)) if total > 1 else 0 for total in accumulate(counts)]
    return [now - before for before, now in pairwise([0, *held])]


def _text_rows(table: Path) -> Iterator[Read]:
    for row in read_rows(table):
        assert isinstance(row, Row)
        require_columns(row, ["text"])
        if text := row.text("text", "").strip():
            yield Example(row.source, text, text)


def _passages(path: Path) -> list[tuple[int, str]]:
    """(first line, text) of each passage of a file."""
    passages: list[tuple[int, str]] = []
    held: list[str] = []
    start, size = 1, 0
    for number, line in enumerate([*read_text(path).splitlines(), ""], start=1):
        held.append(line)
        size += len(line.strip())
        if size >= (2 * _PASSAGE if line.strip() else _PASSAGE):
            passages.append((start, "\n".join(held).strip()))
            held, start, size = [], number + 1, 0
    if any(line.strip() for line in held):
        passages.append((start, "\n".join(held).strip()))
    return passages

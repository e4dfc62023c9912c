"""Texts that are damaged, blank, null or plainly written: named with file and row, or read as they are meant."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data2vec.data.labelled import text
from data2vec.data.labelled.example import Example, Read, divide, settle
from data2vec.data.labelled.text import Answer, Choices, Question
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.spans import name_spans, spans
from data2vec.tasks.choices import MultipleChoice
from data2vec.tasks.config import LabelledConfig
from data2vec.tasks.questions import QuestionAnswering
from data2vec.tasks.sentences import TextClassification
from data2vec.tasks.task import Downstream, Item
from data2vec.tasks.tokens import TokenClassification


def put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def lines(path: Path, *rows: Any) -> Path:
    return put(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def only(read: Iterable[Read]) -> Example:
    (item,) = read
    assert isinstance(item, Example), item
    return item


# Tagged words


@pytest.mark.parametrize("first", ["Windows\tNNP\tO\n2\tCD\tO\nships\tVBZ\tO\n", "1\tCD\tO\nof\tIN\tO\n3\tCD\tO\n"])
def test_a_number_near_its_place_is_a_word(tmp_path: Path, first: str) -> None:
    item, short, other = text.read_tagged(put(tmp_path / "a.conll", f"{first}\n0\tCD\tO\n\nHi\tUH\tO\n"))
    assert isinstance(item, Example) and isinstance(short, Example) and isinstance(other, Example)
    assert item.input == tuple(line.split("\t")[0] for line in first.splitlines())
    assert (short.input, other.input) == (("0",), ("Hi",))


def test_a_sentence_that_does_not_count_as_the_others(tmp_path: Path) -> None:
    counted = "1\ta\tO\n2\t7\tO\n\n" + "0\ta\tO\n1\tb\tO\n\n" * 2
    path = put(tmp_path / "a.conll", f"{counted}1\ta\tO\n2\tb\tO\n1\tc\tO\n\n1\ta\tO\n2\tO\n")
    first, second, _, joined, damaged = text.read_tagged(path)
    assert isinstance(first, Example) and first.input == ("a", "7")
    assert isinstance(second, Example) and second.input == ("a", "b")
    assert isinstance(joined, BadSample) and str(joined).startswith(f"{path}: line 10: the first column must count")
    assert str(damaged) == f"{path}: line 15: needs a word and a tag"


def test_a_line_of_conllu_without_all_columns(tmp_path: Path) -> None:
    word = "\tHi\thi\tINTJ\tUH\t_\t0\troot\t_\t_\n"
    path = put(tmp_path / "a.conllu", f"1{word}2{word}\n1{word}2{word[:-3]}\n")
    good, bad = text.read_tagged(path)
    assert isinstance(good, Example) and good.target == ("INTJ", "INTJ")
    assert str(bad) == f"{path}: line 5: needs a word and a tag"


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ("O B-LOC I-LOC", True),
        ("O U-creative-work L-x", True),
        ("I-A", True),
        ("M-A S-A", True),
        ("O", False),
        ("DT NN -LRB- -RRB-", False),
        ("O B-LOC -X-", False),
        ("B- O", False),
        ("LOC O", False),
        ("X-LOC O", False),
    ],
)
def test_tags_that_name_spans(tags: str, named: bool) -> None:
    assert name_spans(tags.split()) == named


def test_brackets_are_no_spans(encoders: dict[str, Path]) -> None:
    penn = [Example("a", ("(", "the", ")"), ("-LRB-", "DT", "-RRB-"))]
    assert TokenClassification.begin(encoders["text"], penn, LabelledConfig()).metric == "accuracy"
    named = [Example("a", ("in", "rome"), ("O", "B-LOC"))]
    assert TokenClassification.begin(encoders["text"], named, LabelledConfig()).metric == "f1"
    assert spans(["U-P", "U-P", "B-P", "L-P", "I-P"]) == [("P", 0, 1), ("P", 1, 2), ("P", 2, 4), ("P", 4, 5)]
    assert spans(["-P", "-P"]) == [("P", 0, 2)]


# Plain text


def test_a_folder_of_short_texts(tmp_path: Path) -> None:
    for i in range(50):
        put(tmp_path / f"{i:02}.txt", f"A short text, number {i}.\n")
    splits = divide(text.read_passages(tmp_path, 0.1), share=0.1)
    assert (len(splits.train), len(splits.dev)) == (45, 5)
    assert len(divide(text.read_passages(tmp_path, 0.1), hold_out=False).dev) == 50


def test_a_sentence_a_line(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "".join(f"This is the sentence of number {i}.\n" for i in range(2000)))
    splits = divide(text.read_passages(path, 0.1), share=0.1)
    assert (len(splits.train), len(splits.dev)) == (16, 2)
    assert max(len(example.input) for example in splits.all) < 4500
    assert "\n".join(example.input for example in splits.all) == path.read_text().strip()
    assert splits.train[1].source == f"{path}: line {splits.train[0].input.count(chr(10)) + 2}"


def test_paragraphs_are_cut_between(tmp_path: Path) -> None:
    paragraph = "\n".join(["some words in a line"] * 60)
    path = put(tmp_path / "a.txt", "\n\n".join([paragraph] * 8))
    assert {example.input for example in settle(text.read_passages(path, 0.2))[0]} == {f"{paragraph}\n\n{paragraph}"}


def test_short_and_long_texts_in_one_folder(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path / f"{i:02}.txt", "One short text.\n")
    for name in "ab":
        put(tmp_path / f"{name}.txt", f"{'word ' * 500}\n\n" * 10)
    splits = divide(text.read_passages(tmp_path, 0.2), share=0.2)
    assert (len(splits.train), len(splits.dev)) == (32, 8)
    held = [example.source.rsplit("/", 1)[1] for example in splits.dev]
    assert held[-4:] == ["a.txt: line 17", "a.txt: line 19", "b.txt: line 17", "b.txt: line 19"]
    assert len(divide(text.read_passages(tmp_path / "a.txt", 0.01), share=0.01).dev) == 1


# Questions


def asked(**fields: Any) -> dict[str, Any]:
    return {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 3}], **fields}


def squad(path: Path, *qas: Any, context: Any = "It Ann.") -> Path:
    return put(path, json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))


@pytest.mark.parametrize(
    ("qa", "reason"),
    [
        ("who?", "must be an object with an id"),
        (asked(question=5), "has no question that is text"),
        (asked(question=None, id=None), "has no id and no question that is text"),
        (asked(id=["1"]), "has no id that is text"),
        (asked(question=" "), "has no question that is text"),
        (asked(answers="Ann"), "answers must be a list of objects"),
        (asked(answers=["Ann"]), "answers must be a list of objects"),
        (asked(answers={"text": ["Ann"], "answer_start": []}), "answers must be a list of objects"),
        (asked(answers={"text": "Ann", "answer_start": 3}), "answers must be a list of objects"),
        (asked(answers=[{"text": "Ann", "answer_start": None}]), "the answer 'Ann' is not in its context at character"),
        (asked(answers=[{"text": "Ann", "answer_start": 3.0}]), "the answer 'Ann' is not in its context at character"),
        (asked(answers=[{"text": None, "answer_start": 3}]), "the answer None is not in its context at character 3"),
        (asked(answers=[{"text": ["A"], "answer_start": 3}]), "is not in its context at character 3"),
    ],
)
def test_odd_questions_are_named(tmp_path: Path, qa: Any, reason: str) -> None:
    path = squad(tmp_path / "a.json", asked(id="0"), qa)
    good, bad = text.read_questions(path)
    assert isinstance(good, Example) and isinstance(bad, BadSample)
    assert str(bad).startswith(f"{path}: data[0].paragraphs[0].qas[1]: ") and reason in str(bad)


def test_contexts_that_are_no_text(tmp_path: Path) -> None:
    for context in (None, 5, ""):
        (bad,) = text.read_questions(squad(tmp_path / "a.json", asked(), context=context))
        assert isinstance(bad, BadSample) and bad.reason == "has no context that is text"


def test_answers_as_datasets_keeps_them_null_and_ids_that_are_numbers(tmp_path: Path) -> None:
    listed = asked(id=0, answers={"text": ["Ann"], "answer_start": [3]})
    first, none, empty, again = text.read_questions(
        squad(tmp_path / "a.json", listed, asked(answers=None), {"id": "2", "question": "why?"}, asked(id=1))
    )
    assert isinstance(first, Example) and isinstance(none, Example) and isinstance(empty, Example)
    assert (first.input, first.target) == (Question("0", "who?", "It Ann."), (Answer("Ann", 3),))
    assert none.target == empty.target == ()
    assert isinstance(again, BadSample) and again.reason == "has the id 1 of another question"


def test_lower_case_keeps_the_places_of_answers(encoders: dict[str, Path]) -> None:
    task = QuestionAnswering.begin(encoders["text"], [], LabelledConfig(lowercase=True))
    context = "İİİİ in Rome"
    (item,) = task.items([Example("a", Question("1", "İn?", context), (Answer("Rome", 8),))])
    assert isinstance(item, Item)
    assert item.part.spans.max() == len(context)
    folded = [chr(i).replace("\u0130", "I").lower() for i in range(sys.maxunicode + 1)]
    assert {len(letter) for letter in folded} == {1}


# Blank and null


BLANK: list[tuple[Callable[[Path, LabelledConfig], Downstream], Any, list[Any], str]] = [
    (TextClassification.open, "good day", ["", " \t\n", ("good", " ")], "is empty"),
    (TokenClassification.open, ("good", ""), [(), ("", " ")], "is empty"),
    (
        MultipleChoice.open,
        Choices("in", ("rome", "paris")),
        [Choices("in", ("rome", " ")), Choices("", ("a", "b"))],
        "",
    ),
]


@pytest.mark.parametrize(("opened", "good", "blank", "reason"), BLANK, ids=["sentences", "tokens", "choices"])
def test_blank_inputs_are_not_answered(
    encoders: dict[str, Path], opened: Callable[..., Any], good: Any, blank: list[Any], reason: str
) -> None:
    task = begun(opened.__self__, encoders["text"])  # type: ignore[attr-defined]
    items = list(task.items([Example(f"a: line {i}", each) for i, each in enumerate([good, *blank])]))
    assert isinstance(items[0], Item) and len(items) == len(blank) + 1
    reason = reason or "has an empty beginning or an empty option"
    assert [str(item) for item in items[1:]] == [f"a: line {i}: {reason}" for i in range(1, len(items))]


def begun(cls: Any, encoder: Path) -> Downstream:
    pair = [Example("a", ("x",), ("A",)), Example("b", ("x",), ("B",))]
    learnt = [replace(e, target=e.target[0]) for e in pair] if cls is TextClassification else pair
    task: Downstream = cls.begin(encoder, learnt, replace(LabelledConfig(), min_per_class=1))
    return task


def test_blank_and_odd_fields_are_named(tmp_path: Path) -> None:
    table = put(tmp_path / "a.csv", "text,label\n  ,x\nhi, \nhi,x\n")
    good, skipped = settle(text.read_texts(table), skip_bad=True)
    assert [example.target for example in good] == ["x"]
    assert [skip.reason for skip in skipped] == ["has no text", "has no label"]
    rows = [
        {"text": ["a"], "label": "x"},
        {"text": {"b": 1}, "label": "x"},
        {"text": "a", "label": {"b": 1}},
        {"text": "a", "label": ["x", None]},
        {"text": "a", "label": 1},
        {"text": "a", "label": ["x", 0]},
    ]
    good, skipped = settle(text.read_texts(lines(tmp_path / "a.jsonl", *rows)), skip_bad=True)
    assert [example.target for example in good] == ["1", ("x", "0")]
    assert [skip.reason for skip in skipped] == [
        'text must be a text, not ["a"]',
        'text must be a text, not {"b": 1}',
        'label must be a text, not {"b": 1}',
        "has no label 2",
    ]


@pytest.mark.parametrize(("begin", "option"), [(None, "ran."), ("", "ran."), (" ", "ran."), ("He", "He ran.")])
def test_a_null_beginning_is_none(tmp_path: Path, begin: str | None, option: str) -> None:
    row = {"sent1": "x", "sent2": begin, "ending0": "ran.", "ending1": "fell.", "label": 0}
    assert only(text.read_choices(lines(tmp_path / "a.jsonl", row))).input.options[0] == option


def test_null_questions_and_options(tmp_path: Path) -> None:
    plain = {"question": "where?", "choices": {"label": ["A", "B"], "text": ["here", 2]}, "answerKey": "B"}
    rows = [
        plain,
        plain | {"question": None},
        plain | {"question": {"stem": None}},
        plain | {"question": {"stem": "where?"}},
        plain | {"choices": {"label": ["A", "B"], "text": ["here", None]}},
        plain | {"choices": [{"label": "A", "text": " "}, {"label": "B", "text": "there"}]},
        {"sent1": "x", "sent2": ["y"], "ending0": "a", "ending1": "b", "label": 0},
        {"sent1": "x", "sent2": "y", "ending0": "a", "ending1": None, "label": 0},
    ]
    good, skipped = settle(text.read_choices(lines(tmp_path / "a.jsonl", *rows)), skip_bad=True)
    assert [example.input for example in good] == [Choices("where?", ("here", "2"))] * 2
    assert [skip.reason for skip in skipped] == [
        "has no question",
        "has no question",
        "has no choice 2",
        "has no choice 1",
        'sent2 must be a text, not ["y"]',
        "has no ending1",
    ]


# CSV


def test_a_long_field(tmp_path: Path) -> None:
    long = "words, " * 40_000
    table = put(tmp_path / "a.csv", f'text,label\n"{long}\nand more",x\nhi,y')
    assert [example.input for example in settle(text.read_texts(table))[0]] == [f"{long}\nand more", "hi"]


@pytest.mark.parametrize("end", ['"b,x\nc,x\n', '"b,x', 'b,"', 'b,"\n'])
def test_a_quote_left_open(tmp_path: Path, end: str) -> None:
    path = put(tmp_path / "a.csv", f'text,label\n"a\na",x\n{end}')
    with pytest.raises(UserError, match=r"a\.csv: line 4 cannot be read \(the file ends within it\): is a quote left"):
        list(text.read_texts(path))


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_ends_of_a_csv(tmp_path: Path, end: str) -> None:
    table = put(tmp_path / "a.csv", f'"te\nxt",label\nhi,"x"{end}')
    item = only(text.read_texts(table, texts=["te\nxt"]))
    assert (item.input, item.target, item.source) == ("hi", "x", f"{table}: line 3")

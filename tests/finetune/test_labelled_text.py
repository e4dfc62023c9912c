"""Tables and tagged words as they are published: comments, years, odd line ends, rows without a label."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data2vec.data.labelled import audio, text
from data2vec.data.labelled.example import Example, Read, settle
from data2vec.data.labelled.text import Choices
from data2vec.data.manifest import read_columns, read_manifest
from data2vec.errors import BadSample, UserError

ODD = "a\u2028b\u2029c\x85d"
"""Line ends to `str.splitlines`, and characters of a text to JSON and CSV."""


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def only(read: Iterable[Read]) -> Example:
    (item,) = read
    assert isinstance(item, Example), item
    return item


UD = """# newdoc
# sent_id = w01
# text = Don't go # out
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\tSpaceAfter=No
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4\t#\t#\tSYM\tNFP\t_\t3\tpunct\t_\t_
5\tout\tout\tADV\tRB\t_\t3\tadvmod\t_\tSpaceAfter=No

# text = a b c d e f g
1\tHi\thi\tINTJ\tUH\t_\t0\troot\t_\t_

# global.columns = ID FORM
"""


def test_universal_dependencies(tmp_path: Path) -> None:
    path = put(tmp_path / "a.conllu", UD)
    first, second = text.read_tagged(path)
    assert isinstance(first, Example) and isinstance(second, Example)
    assert first.input == ("Do", "n't", "go", "#", "out")
    assert first.target == ("AUX", "PART", "VERB", "SYM", "ADV")
    assert first.source == f"{path}: line 5"
    assert (second.input, second.target) == (("Hi",), ("INTJ",))


@pytest.mark.parametrize(
    "content",
    [
        "# id 12\tdomain=train\n# _ _ O\nb _ _ O\n",
        "#\tO\nb\tO\n",
        "# O\nb O\n",
        "0\t#\tO\n1\tb\tO\n",
        "# a sentence\n0\t#\tO\n1\tb\tO\n",
        "1\t#\t1\tO\n2\tb\t1.5\tO\n",
    ],
)
def test_a_hash_that_is_a_word(tmp_path: Path, content: str) -> None:
    item = only(text.read_tagged(put(tmp_path / "a.conll", content)))
    assert (item.input, item.target) == (("#", "b"), ("O", "O"))


@pytest.mark.parametrize("year", ["2012test", "2014", "2017train", "2015"])
def test_years_of_the_sts_benchmark(tmp_path: Path, year: str) -> None:
    path = put(tmp_path / "sts-train.csv", f"main-captions\tMSRvid\t{year}\t0001\t5.000\tA plane.\tAn air plane.\n")
    item = only(text.read_texts(path))
    assert (item.input, item.target) == (("A plane.", "An air plane."), "5.000")


def test_line_ends_within_a_text(tmp_path: Path) -> None:
    rows = json.dumps({"text": ODD, "label": "x"}, ensure_ascii=False)
    lines = put(tmp_path / "a.jsonl", f"{rows}\r\n\n{rows}\n")
    table = put(tmp_path / "a.csv", f'text,label\n{ODD},x\n"{ODD}\nb",x\n')
    tabs = put(tmp_path / "a.tsv", f"text\tlabel\n{ODD}\tx\n")
    assert [(e.source, e.input) for e in settle(text.read_texts(lines))[0]] == [
        (f"{lines}: line 1", ODD),
        (f"{lines}: line 3", ODD),
    ]
    assert [e.input for e in settle(text.read_texts(table))[0]] == [ODD, f"{ODD}\nb"]
    assert only(text.read_texts(tabs)).input == ODD
    assert read_columns(lines)["text"] == [ODD, ODD]
    assert read_columns(table)["text"] == [ODD, f"{ODD}\nb"]


def test_line_ends_within_names_and_transcripts(tmp_path: Path) -> None:
    for name in (ODD, "e"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(80, dtype=np.float32), 8000)
    tsv = put(tmp_path / "train.tsv", f".\n{ODD}.wav\t80\ne.wav\t80\n")
    put(tmp_path / "train.wrd", "HI\x85YOU\nTHEY\n")
    assert read_manifest(tsv, {".wav"}).names == [f"{ODD}.wav", "e.wav"]
    assert [example.target for example in settle(audio.read_transcripts(tmp_path))[0]] == ["HI YOU", "THEY"]
    put(tmp_path / "train.wrd", "")
    with pytest.raises(UserError, match=r"train\.wrd: 0 lines for the 2 files"):
        list(audio.read_transcripts(tmp_path))


@pytest.mark.parametrize("read", [text.read_texts, read_columns], ids=["texts", "columns"])
def test_a_quote_that_never_ends(tmp_path: Path, read: Callable[[Path], Iterable[object]]) -> None:
    path = put(tmp_path / "a.csv", 'text,label\na,x\n"b,x\n' + "words and words,x\n" * 10_000)
    with pytest.raises(UserError, match=r"line 3 cannot be read \(the file ends within it\): is a quote left open"):
        list(read(path))


def test_choices_without_an_answer(tmp_path: Path) -> None:
    swag = put(tmp_path / "a.csv", "sent1,sent2,ending0,ending1,label\nx,y,a,b,\nx,y,a,b,0\n")
    bad, good = text.read_choices(swag)
    assert str(bad) == f"{swag}: line 2: has no label"
    assert isinstance(good, Example) and good.target == 0
    with pytest.raises(UserError, match="no column 'label' among sent1, sent2"):
        list(text.read_choices(put(tmp_path / "b.csv", "sent1,sent2,ending0,ending1\nx,y,a,b\n")))
    row = {"question": "where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]}, "answerKey": ""}
    (bad,) = text.read_choices(put(tmp_path / "a.jsonl", json.dumps(row)))
    assert str(bad).endswith("line 1: has no answerKey")


@pytest.mark.parametrize("choices", ["here or there", ["here", "there"], {"text": ["here", "there"]}, None])
def test_choices_of_another_form(tmp_path: Path, choices: object) -> None:
    row = {"question": "where?", "choices": choices, "answerKey": "A"}
    (bad,) = text.read_choices(put(tmp_path / "a.jsonl", json.dumps(row)))
    assert isinstance(bad, BadSample)
    assert str(bad).endswith('line 1: choices must be an object {"label": ["A", ...], "text": [...]}, in JSON lines')


def test_choices_in_a_csv_or_a_list(tmp_path: Path) -> None:
    (bad,) = text.read_choices(put(tmp_path / "a.csv", "question,choices,answerKey\nwhere?,here or there,A\n"))
    assert isinstance(bad, BadSample) and "line 2: choices must be an object" in str(bad)
    listed = [{"label": "A", "text": "here"}, {"label": "B", "text": "there"}]
    row = {"question": {"stem": "where?"}, "choices": listed, "answerKey": "B"}
    item = only(text.read_choices(put(tmp_path / "a.jsonl", json.dumps(row))))
    assert (item.input, item.target) == (Choices("where?", ("here", "there")), 1)


def test_a_row_of_json_without_a_label_is_left_out_when_asked(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n{"text": "c", "label": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl: line 2: no column 'label' among text; .*--skip-bad"):
        settle(text.read_texts(path))
    good, skipped = settle(text.read_texts(path), skip_bad=True)
    assert [example.input for example in good] == ["a", "c"]
    assert [skip.reason for skip in skipped] == ["no column 'label' among text"]
    path = put(tmp_path / "b.jsonl", '{"sent1": "x", "sent2": "y"}\n')
    (bad,) = text.read_choices(path)
    assert str(bad).startswith(f"{path}: line 1: no column 'ending0', 'ending1', 'label' among sent1")

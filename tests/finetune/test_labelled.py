"""Readers of labelled data: every format as people have it, and every mistake with its file and row."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image

from data2vec.data.labelled import audio, images, text
from data2vec.data.labelled.example import Example, Read, Turn, divide, settle, split_of
from data2vec.data.labelled.text import Answer, Choices, Question
from data2vec.errors import BadSample, UserError
from data2vec.tasks.classify import Answers
from data2vec.tasks.config import LabelledConfig
from data2vec.tasks.frames import AudioFrames
from data2vec.tasks.pictures import read_picture
from data2vec.tasks.segmentation import SemanticSegmentation
from data2vec.tasks.speakers import SpeakerVerification
from data2vec.tasks.task import Item

COUNTS = [  # data set, reader, examples to train on and held out, as its README says
    ("fsdd", audio.read_audio_classes, 1000, 250),
    ("fsdd", audio.read_transcripts, 1000, 250),
    ("digit_strings", audio.read_transcripts, 230, 40),
    ("timit_sample", audio.read_transcripts, 80, 20),
    ("diar_mix", audio.read_timelines, 28, 6),
    ("ami_diar", audio.read_timelines, 6, 2),
    ("agnews", text.read_texts, 4000, 500),
    ("sst2", text.read_texts, 12_123, 842),
    ("cola", text.read_texts, 8551, 516),
    ("stsb", text.read_texts, 3749, 1000),
    ("rte", text.read_texts, 1244, 139),
    ("wnut17", text.read_tagged, 3394, 1009),
    ("wikineural_en", text.read_tagged, 6000, 800),
    ("xquad_en", text.read_questions, 826, 99),
    ("commonsense_qa", text.read_choices, 850, 100),
    ("swag_like", text.read_choices, 2600, 400),
    ("cifar10", images.read_image_classes, 1500, 400),
    ("tf_flowers", images.read_image_classes, 100, 25),
    ("camvid", images.read_masks, 62, 15),
]


@pytest.mark.parametrize(("name", "read", "train", "dev"), COUNTS, ids=[f"{n}-{r.__name__}" for n, r, *_ in COUNTS])
def test_real_data_in_the_formats_as_they_are(
    data_dir: Path, name: str, read: Callable[[Path], Iterable[Read]], train: int, dev: int
) -> None:
    splits = divide(read(data_dir / name))
    assert (len(splits.train), len(splits.dev), splits.skipped) == (train, dev, [])
    sources = [example.source for example in splits.all]
    assert len(set(sources)) == len(sources)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.zeros(800, dtype=np.float32), 8000)
    return tmp_path / "a.wav"


def put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def only(read: Iterable[Read]) -> Read:
    (item,) = read
    return item


def test_three_layouts_of_transcripts(tmp_path: Path, wav: Path) -> None:
    put(tmp_path / "train.tsv", ".\na.wav\t800\n")
    put(tmp_path / "train.ltr", "H I | Y O U |\n")
    assert only(audio.read_transcripts(tmp_path)) == Example(str(wav), wav, "HI YOU", "train")
    put(tmp_path / "train.phn", "h# hh ay\n")
    phones = only(audio.read_transcripts(tmp_path, phones=True))
    assert isinstance(phones, Example) and phones.target == "h# hh ay"
    table = put(tmp_path / "m.jsonl", '{"audio_filepath": "a.wav", "text": "hi  you", "split": "validation"}\n')
    assert only(audio.read_transcripts(table)) == Example(str(wav), wav, "hi you", "dev")
    put(tmp_path / "ls/dev/1/2/1-2.trans.txt", "1-2-0 HI\n1-2-1 YOU\n")
    (tmp_path / "ls/dev/1/2/1-2-0.wav").write_bytes(wav.read_bytes())
    first, second = audio.read_transcripts(tmp_path / "ls")
    assert isinstance(first, Example) and (first.target, first.split) == ("HI", "dev")
    assert isinstance(second, BadSample) and "no recording '1-2-1'" in str(second)


def test_turns_with_uem(tmp_path: Path, wav: Path) -> None:
    put(tmp_path / "dev.rttm", "SPEAKER a 1 0.5 1.25 <NA> <NA> bob <NA> <NA>\nSPEAKER b 1 x 1 <NA> <NA> bob\n")
    put(tmp_path / "dev.uem", "a NA 0.1 2\n")
    bad, good = audio.read_timelines(tmp_path)
    assert isinstance(good, Example)
    assert (good.target.turns, good.target.span) == ((Turn(0.5, 1.75, "bob"),), (0.1, 2.0))
    assert str(bad).startswith(f"{tmp_path / 'dev.rttm'}: line 2: must be")
    audio.write_rttm(tmp_path / "out.rttm", {"a": list(good.target.turns)})
    again = put(tmp_path / "dev.rttm", (tmp_path / "out.rttm").read_text())
    assert isinstance(item := only(audio.read_timelines(again)), Example) and item.target == good.target


def test_turns_of_one_file_a_recording(tmp_path: Path, wav: Path) -> None:
    for name in "ab":
        put(tmp_path / f"{name}.rttm", f"SPEAKER {name} 1 0.5 1.25 <NA> <NA> bob <NA> <NA>\n")
    (tmp_path / "audio").mkdir()
    other = wav.rename(tmp_path / "audio/a.wav").with_name("b.wav")
    other.write_bytes((tmp_path / "audio/a.wav").read_bytes())
    both = settle(audio.read_timelines(tmp_path))[0]
    assert [(item.input.stem, item.split) for item in both] == [("a", ""), ("b", "")]
    put(tmp_path / "answer.rttm", (tmp_path / "a.rttm").read_text())
    with pytest.raises(UserError, match=r"answer\.rttm: .*a\.wav: comes twice, first in .*a\.rttm"):
        settle(audio.read_timelines(tmp_path))


def test_turns_in_folders_of_a_side(tmp_path: Path, wav: Path) -> None:
    for side, name in (("train", "a"), ("dev", "b"), ("dev", "c")):
        put(tmp_path / side / "rttm" / f"{name}.rttm", f"SPEAKER {name} 1 0.5 1.25 <NA> <NA> bob <NA> <NA>\n")
        put(tmp_path / side / "audio" / f"{name}.wav", "").write_bytes(wav.read_bytes())
    nearer = put(tmp_path / "dev" / "rttm" / "c.wav", "")
    read = settle(audio.read_timelines(tmp_path))[0]
    assert {(item.input, item.split) for item in read} == {
        (tmp_path / "train" / "audio" / "a.wav", "train"),
        (tmp_path / "dev" / "audio" / "b.wav", "dev"),
        (nearer, "dev"),
    }


def test_a_recording_of_which_parts_are_labelled(tmp_path: Path, wav: Path, encoders: dict[str, Path]) -> None:
    rttm = put(tmp_path / "a.rttm", "SPEAKER a 1 0 4 <NA> <NA> bob <NA> <NA>\n")
    put(tmp_path / "a.uem", ";; what was transcribed\n\na 1 3 4\na 1 0 1\na 1 0.5 1.5\n")
    item = only(audio.read_timelines(rttm))
    assert isinstance(item, Example)
    assert (item.target.span, item.target.gaps) == ((0.0, 4.0), ((1.5, 3.0),))
    task = AudioFrames.begin(encoders["audio"], [item], LabelledConfig(frames="names"))
    labels = task.label(item.target, 0, 200)[:, 0]
    assert set(labels[:70]) == {1} and set(labels[80:145]) == {-100} and set(labels[155:195]) == {1}
    scores = task.score([item], [{"turns": [[0, 0.5, "bob"], [1.5, 3, "x"], [3.5, 4, "bob"]]}])
    assert scores["der"] == pytest.approx(1.5 / 2.5) and scores["der_single_speaker"] == 0
    put(tmp_path / "a.uem", "a 1 3\n")
    with pytest.raises(UserError, match=r"a\.uem: line 1 must be"):
        list(audio.read_timelines(rttm))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text,label\nhi,good\n", ("hi", "good")),
        ("a.csv", 'label,text\ngood,"hi, you"\n', ("hi, you", "good")),
        ("a.tsv", "sentence1\tsentence2\tlabel\nhi\tyou\tyes\n", (("hi", "you"), "yes")),
        ("a.tsv", "gj04\t1\t\tHi you.\n", ("Hi you.", "1")),
        ("a.csv", "g\tf\t2014\t1\t4.5\thi\tyou\textra\n", (("hi", "you"), "4.5")),
        ("a.jsonl", '{"text": "hi", "labels": ["x", "y"]}\n', ("hi", ("x", "y"))),
    ],
)
def test_layouts_of_text(tmp_path: Path, name: str, content: str, expected: tuple[object, object]) -> None:
    item = only(text.read_texts(put(tmp_path / name, content)))
    assert isinstance(item, Example)
    assert (item.input, item.target) == expected


def test_columns_by_name(tmp_path: Path) -> None:
    table = put(tmp_path / "a.csv", "body,topics\nhi,x|y\n")
    item = only(text.read_texts(table, texts=["body"], label="topics", separator="|"))
    assert isinstance(item, Example) and (item.input, item.target) == ("hi", ("x", "y"))
    with pytest.raises(UserError, match=r"no column 'label' among body, topics"):
        list(text.read_texts(table, texts=["body"]))


@pytest.mark.parametrize("content", ["a\tB-X\nb\tO\n\n", "0\ta\tB-X\n1\tb\tO\n", "-DOCSTART- O\n\na B-X\nb O"])
def test_layouts_of_tagged_words(tmp_path: Path, content: str) -> None:
    item = only(text.read_tagged(put(tmp_path / "a.conll", content)))
    assert isinstance(item, Example)
    assert (item.input, item.target) == (("a", "b"), ("B-X", "O"))


def squad(answer: str, start: int, id: str = "1") -> dict[str, object]:
    return {"id": id, "question": "who?", "answers": [{"text": answer, "answer_start": start}]}


def test_questions(tmp_path: Path) -> None:
    qas = [squad("Ann", 3), squad("Ann", 4, "2"), squad("Ann", 3), {"id": "4", "question": "why?", "answers": []}]
    data = {"data": [{"paragraphs": [{"context": "It Ann.", "qas": qas}]}]}
    good, elsewhere, again, none = text.read_questions(put(tmp_path / "a.json", json.dumps(data)))
    assert isinstance(good, Example) and isinstance(none, Example)
    assert (good.input, good.target) == (Question("1", "who?", "It Ann."), (Answer("Ann", 3),))
    assert none.target == ()
    assert "qas[1]: the answer 'Ann' is not in its context at character 4" in str(elsewhere)
    assert "the id '1' of another question" in str(again)


def test_choices(tmp_path: Path) -> None:
    swag = put(tmp_path / "a.csv", "sent1,sent2,ending0,ending1,label\nShe sat.,He,ran.,fell.,1\nx,y,a,b,2\n")
    good, bad = text.read_choices(swag)
    assert isinstance(good, Example)
    assert (good.input, good.target) == (Choices("She sat.", ("He ran.", "He fell.")), 1)
    assert str(bad) == f"{swag}: line 3: label '2' is none of 0 to 1"
    row = {"question": "where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]}, "answerKey": "B"}
    item = only(text.read_choices(put(tmp_path / "a.jsonl", json.dumps(row))))
    assert isinstance(item, Example) and (item.input, item.target) == (Choices("where?", ("here", "there")), 1)


def test_masks(tmp_path: Path) -> None:
    for name, size in (("a", (4, 3)), ("b", (4, 3)), ("c", (4, 3))):
        (tmp_path / "images/training").mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks/training").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(tmp_path / f"images/training/{name}.jpg")
    Image.new("L", (4, 3)).save(tmp_path / "masks/training/a.png")
    Image.new("L", (3, 4)).save(tmp_path / "masks/training/b.png")
    good, other, missing = images.read_masks(tmp_path)
    assert isinstance(good, Example) and good.split == "train"
    assert "b.png: is 3 x 4 pixels, its picture 4 x 3" in str(other)
    assert "c.jpg: has no map of classes" in str(missing)
    put(tmp_path / "classes.csv", "index,name\n0,sky\n1,void\n")
    assert images.read_palette(tmp_path) == images.Palette(("sky",), 1)


def test_maps_of_photos_that_lie_on_their_side(tmp_path: Path) -> None:
    """A camera held upright: pixels of 4 x 3 with a note to turn them; the map is 3 x 4, as the photo is seen."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "images/a.jpg", exif=turned)
    Image.new("L", (3, 4)).save(tmp_path / "masks/a.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "images/b.jpg", exif=turned)
    Image.new("L", (4, 3)).save(tmp_path / "masks/b.png")
    good, bad = images.read_masks(tmp_path)
    assert isinstance(good, Example) and "b.png: is 4 x 3 pixels, its picture 3 x 4" in str(bad)
    (item,) = SemanticSegmentation.items(cast("Any", None), [good], train=True)
    assert isinstance(item, Item) and item.part == (4, 3) == read_picture(good.input).size[::-1]


def test_mistakes_name_file_and_row(tmp_path: Path, wav: Path) -> None:
    cases: list[tuple[Iterable[Read], str]] = [
        (text.read_texts(put(tmp_path / "1.csv", "text,label\nhi\n")), "1.csv: line 2: has 1 fields, the header 2"),
        (text.read_texts(put(tmp_path / "2.csv", "text,label\nhi,\n")), "2.csv: line 2: has no label"),
        (text.read_texts(put(tmp_path / "3.jsonl", "{\n")), "3.jsonl: line 1: is not JSON"),
        (text.read_tagged(put(tmp_path / "4.conll", "a O\nb\n")), "4.conll: line 2: needs a word and a tag"),
        (audio.read_audio_classes(put(tmp_path / "5.csv", "file,label\nb.wav,x\n")), "line 2: file 'b.wav': no such"),
        (audio.read_transcripts(put(tmp_path / "6.csv", "file,text\na.wav,\n")), "line 2: a.wav has an empty tran"),
        (audio.read_trials(put(tmp_path / "7.txt", "1 a.wav b.wav\n")), "line 1: no such file"),
        (text.read_texts(put(tmp_path / "8.csv", "text,label,split\nhi,x,unused\n")), "line 2: split 'unused' is none"),
        (audio.read_transcripts(put(tmp_path / "9.csv", "file,text,split\na.wav,x,b\n")), "line 2: split 'b' is none"),
        (audio.read_audio_classes(put(tmp_path / "10.csv", "file,label,split\na.wav,x,b\n")), "line 2: split 'b'"),
    ]
    for read, message in cases:
        with pytest.raises(UserError, match=message.replace("(", r"\(")):
            settle(read)


def test_bad_rows_are_left_out_only_when_asked(tmp_path: Path) -> None:
    table = put(tmp_path / "a.csv", "text,label\nhi,x\n,y\nyou,\nthey,x\n")
    with pytest.raises(UserError, match=r"line 3: has no text \(and 1 more like this\); .*--skip-bad"):
        settle(text.read_texts(table))
    good, skipped = settle(text.read_texts(table), skip_bad=True)
    assert [example.input for example in good] == ["hi", "they"]
    assert [skip.reason for skip in skipped] == ["has no text", "has no label"]


def test_sides() -> None:
    assert [split_of(name) for name in ("sts-train", "Validation", "dev", "trained", "x")] == [
        "train",
        "dev",
        "dev",
        "",
        "",
    ]
    examples = [Example(str(i), i) for i in range(10)]
    splits = divide(examples, share=0.3, seed=1)
    assert (len(splits.train), len(splits.dev)) == (7, 3)
    assert divide(examples, share=0.3, seed=1) == splits != divide(examples, share=0.3, seed=2)
    assert len(divide(examples, hold_out=False).dev) == 10
    with pytest.raises(UserError, match="some on both sides"):
        divide(examples[:1])


def sides_of(read: Iterable[Read], hold_out: bool = True) -> tuple[list[str], list[str]]:
    """Targets on both sides, none skipped."""
    splits = divide(read, hold_out=hold_out)
    assert not splits.skipped
    return [str(e.target) for e in splits.train], [str(e.target) for e in splits.dev]


def test_tests_judge_only_where_nothing_else_does() -> None:
    names = ("test", "sts-test.tsv", "test-clean", "test2017", "Testing", "latest", "dev-clean", "train-clean-100")
    assert [split_of(name) for name in names] == ["test", "test", "test", "test", "test", "", "dev", "train"]
    train, dev, test, unsaid = (Example(s, s, s, s) for s in ("train", "dev", "test", ""))
    for hold_out in (True, False):
        assert sides_of([train, test, dev], hold_out) == (["train"], ["dev"])
        assert sides_of([train, test], hold_out) == (["train"], ["test"])
    assert sides_of([unsaid, test, dev]) == ([""], ["dev"])
    assert sides_of([unsaid, test]) == ([""], ["test"])
    assert sides_of([test], hold_out=False) == ([], ["test"])


@pytest.mark.parametrize("top", ["", "top/"])
@pytest.mark.parametrize("val", ["validation", ""])
def test_tests_of_every_layout(tmp_path: Path, wav: Path, top: str, val: str) -> None:
    parts = [part for part in ("train", val, "test") if part]
    expected = (["train"], [val or "test"])
    table = put(tmp_path / "a.csv", "text,label,split\n" + "".join(f"x,{part},{part}\n" for part in parts))
    assert sides_of(text.read_texts(table)) == expected
    for part in parts:
        for file in (f"clips/{top}{part}/{part}/a.wav", f"ls/{top}{part}-clean/1/2/1-2-0.wav", f"phones/{part}.wav"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(wav.read_bytes())
        put(tmp_path / f"ls/{top}{part}-clean/1/2/1-2.trans.txt", f"1-2-0 {part}\n")
        put(tmp_path / f"wiki/{top}wiki.{part}.tokens", f"{part}\n")
        put(tmp_path / f"csv/{part}.csv", f"text,label\nx,{part}\n")
        put(tmp_path / f"phones/{part}.phn", "0 800 ah\n")
        put(tmp_path / f"phones/{part}.tsv", f".\n{part}.wav\t800\n")
    assert sides_of(audio.read_audio_classes(tmp_path / "clips")) == expected
    assert sides_of(audio.read_transcripts(tmp_path / "ls")) == expected
    assert sides_of(text.read_passages(tmp_path / "wiki", 0.5)) == expected
    assert sides_of(text.read_texts(tmp_path / "csv")) == expected
    timelines = divide(audio.read_timelines(tmp_path / "phones", phones=True))
    assert ([e.input.stem for e in timelines.train], [e.input.stem for e in timelines.dev]) == expected


def test_speakers_are_not_learnt_from_the_recordings_of_the_pairs(tmp_path: Path, wav: Path) -> None:
    for name in ("ann/1", "ann/2", "bob/1", "bob/2"):
        (tmp_path / f"clips/{name}.wav").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"clips/{name}.wav").write_bytes(wav.read_bytes())
    trials = put(tmp_path / "lists/dev.txt", "0 ../clips/ann/1.wav ../clips/bob/1.wav\n")
    data = LabelledConfig(trials=str(trials))

    def learnt(source: Path) -> list[str]:
        splits = divide(SpeakerVerification.read(source, data))
        assert len(splits.dev) == 1
        return [e.input.relative_to(source).as_posix() for e in splits.train]

    assert learnt(tmp_path / "clips") == ["ann/2.wav", "bob/2.wav"]
    (tmp_path / "clips").rename(tmp_path / "train")
    (tmp_path / "sides").mkdir()
    (tmp_path / "train").rename(tmp_path / "sides/train")
    for side in ("dev", "test"):
        (tmp_path / f"sides/{side}/cy").mkdir(parents=True)
        (tmp_path / f"sides/{side}/cy/1.wav").write_bytes(wav.read_bytes())
    put(trials, "0 ../sides/train/ann/1.wav ../sides/dev/cy/1.wav\n")
    assert learnt(tmp_path / "sides") == [f"train/{name}.wav" for name in ("ann/1", "ann/2", "bob/1", "bob/2")]


def test_all_lists_of_a_side_are_read(tmp_path: Path, wav: Path) -> None:
    for name in ("DH_DEV_0001", "DH_DEV_0002"):
        put(tmp_path / f"{name}.rttm", f"SPEAKER {name} 1 0.5 1.25 <NA> <NA> bob <NA> <NA>\n")
        (tmp_path / f"{name}.wav").write_bytes(wav.read_bytes())
    read = settle(audio.read_timelines(tmp_path))[0]
    assert [(item.input.stem, item.split) for item in read] == [("DH_DEV_0001", "dev"), ("DH_DEV_0002", "dev")]
    for name in ("dev_matched", "dev_mismatched", "train"):
        put(tmp_path / f"{name}.tsv", f"text\tlabel\n{name}\tgood\n")
    assert {item.input for item in settle(text.read_texts(tmp_path))[0]} == {"dev_matched", "dev_mismatched", "train"}


def test_what_comes_twice_is_named_with_both_rows(tmp_path: Path, wav: Path) -> None:
    (tmp_path / "b.wav").write_bytes(wav.read_bytes())
    table = put(tmp_path / "m.csv", "file_name,text,label\na.wav,ONE,x\nb.wav,TWO,x\na.wav,NINE,y\n")
    for read in (audio.read_transcripts, audio.read_audio_classes):
        with pytest.raises(UserError, match=r"m\.csv: line 4: .*a\.wav: comes twice, first in .*m\.csv: line 2"):
            settle(read(table))
        kept, skipped = settle(read(table), skip_bad=True)
        assert [item.input.name for item in kept] == ["a.wav", "b.wav"] and len(skipped) == 1


@pytest.mark.parametrize("turn", ["nan 1", "inf 1", "1 inf", "-0.5 1", "1 -4"])
def test_turns_are_seconds_from_0_on(tmp_path: Path, wav: Path, turn: str) -> None:
    rttm = put(tmp_path / "a.rttm", f"SPEAKER a 1 0 0.1 <NA> <NA> bob\nSPEAKER a 1 {turn} <NA> <NA> bob\n")
    bad, good = audio.read_timelines(rttm)
    assert isinstance(bad, BadSample) and str(bad).startswith(f"{rttm}: line 2: must be")
    assert isinstance(good, Example) and good.target.turns == (Turn(0, 0.1, "bob"),)
    put(tmp_path / "a.uem", f"a 1 {turn}\n")
    with pytest.raises(UserError, match=r"a\.uem: line 1 must be"):
        list(audio.read_timelines(rttm))


def test_a_turn_after_the_end_of_its_recording(tmp_path: Path, wav: Path, encoders: dict[str, Path]) -> None:
    rttm = put(tmp_path / "a.rttm", "SPEAKER a 1 0.01 0.4 <NA> <NA> bob <NA> <NA>\n")  # of .1 s; ends are often rounded
    task = AudioFrames.begin(encoders["audio"], settle(audio.read_timelines(rttm))[0], LabelledConfig(frames="names"))
    assert isinstance(next(iter(task.items(settle(audio.read_timelines(rttm))[0]))), Item)
    put(rttm, "SPEAKER a 1 500 40 <NA> <NA> bob <NA> <NA>\n")
    (bad,) = task.items(settle(audio.read_timelines(rttm))[0])
    assert str(bad) == f"{rttm}: {wav}: 'bob' is said to last until 540.00 s, and the recording ends at 0.10 s"


def test_names_with_spaces_in_rttm(tmp_path: Path, wav: Path) -> None:
    (tmp_path / "my meeting.wav").write_bytes(wav.read_bytes())
    turns = [Turn(0.0, 0.5, "ann lee")]
    audio.write_rttm(tmp_path / "out.rttm", {"my meeting": turns})
    item = only(audio.read_timelines(tmp_path / "out.rttm"))
    assert isinstance(item, Example) and item.input == tmp_path / "my meeting.wav"
    assert item.target.turns == (Turn(0.0, 0.5, "ann_lee"),)


def test_rows_of_json_without_text_or_file_are_named(tmp_path: Path, wav: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "text": "hi"}, {"audio_filepath": "a.wav"}, {"text": "hi"}]
    table = put(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = audio.read_transcripts(table)
    assert isinstance(first, Example)
    assert str(second).startswith(f"{table}: line 2: no column 'text' among audio_filepath")
    assert str(third).startswith(f"{table}: line 3: no column 'file_name' among text")


def test_blank_lines_of_lists_are_nothing(tmp_path: Path, wav: Path) -> None:
    put(tmp_path / "ls/a.trans.txt", "\n1-2-0 HI\n\n")
    (tmp_path / "ls/1-2-0.wav").write_bytes(wav.read_bytes())
    assert isinstance(only(audio.read_transcripts(tmp_path / "ls")), Example)
    trials = put(tmp_path / "trials.txt", "1 a.wav a.wav\n\n")
    assert isinstance(only(audio.read_trials(trials)), Example)


def test_names_of_classes_as_windows_writes_them(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfWorld\r\nSports\r\n")
    put(tmp_path / "a.csv", "text,label\nhi,0\nyou,1\n")
    assert [item.target for item in settle(text.read_texts(tmp_path / "a.csv"))[0]] == ["World", "Sports"]


def test_a_value_that_is_no_number_among_many(tmp_path: Path) -> None:
    rows = [*(f"text {n},{n / 4}" for n in range(20)), "text,N/A"]
    examples = settle(text.read_texts(put(tmp_path / "a.csv", "text,label\n" + "\n".join(rows) + "\n")))[0]
    answers = Answers.of_examples(examples)
    assert answers.problem == "regression" == Answers.of_examples(examples, "regression").problem
    problems = [str(bad) for example in examples if (bad := answers.check(example))]
    assert problems == [f"{tmp_path / 'a.csv'}: line 22: the label 'N/A' is no number"]
    assert Answers.of_examples(examples[:5] + examples[-2:]).problem == "single_label"

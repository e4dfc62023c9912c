"""The table of examples: every input, target and answer in words; wrong is what the task's own score calls wrong."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data2vec.data.labelled.audio import Timeline
from data2vec.data.labelled.example import Example, Turn
from data2vec.data.labelled.text import Answer, Choices, Question
from data2vec.tasks.config import LabelledConfig
from data2vec.tasks.names import task_class
from data2vec.tasks.report import example_table
from data2vec.tasks.run import evaluate, usable
from data2vec.tasks.segmentation import SemanticSegmentation
from data2vec.tasks.task import Downstream, Prediction

Begin = Callable[..., Downstream]
CLIP = Path("some/0.wav")
TURNS = Timeline((Turn(0.6, 1.25, "bob"), Turn(2.0, 3.0, "ann")))
QUESTION = Question("q1", "who?", "The Cat sat")
CHOICES = Choices("it is", ("good", "bad"))


@pytest.fixture
def begin(encoders: dict[str, Path]) -> Begin:
    """A task on a tiny encoder, for the targets of some examples."""
    modality = {"asr": "audio", "audio-frames": "audio", "speaker-verification": "audio"}

    def start(name: str, *train: Example, **config: Any) -> Downstream:
        small = {"xvector_output_dim": 8, "tdnn_dim": [8, 8], "tdnn_kernel": [3, 1], "tdnn_dilation": [1, 1]}
        fields = small if name == "speaker-verification" else {}
        source = encoders[modality.get(name, "text")]
        task: Downstream = task_class(name).begin(source, train, LabelledConfig(**config), **fields)
        return task

    return start


def row(task: Downstream, example: Example, prediction: Prediction) -> tuple[bool, list[str]]:
    """Whether an example's row is shaded, and its cells."""
    table = example_table(task, [example], [prediction])
    ((shade, cells),) = re.findall(r"<tr( class=\"wrong\")?>((?:<td>.*?</td>)+)</tr>", table)
    return bool(shade), [unescape(cell) for cell in re.findall("<td>(.*?)</td>", cells)]


def test_a_transcript_is_compared_in_the_case_of_the_vocabulary(begin: Begin) -> None:
    task = begin("asr", Example("a", CLIP, "ADA RAN"))
    example = Example("some/0.wav", CLIP, "ada ran")
    assert row(task, example, {"text": "ADA RAN"}) == (False, ["0.wav", "ada ran", "ADA RAN"])
    assert row(task, example, {"text": "ADA"}) == (True, ["0.wav", "ada ran", "ADA"])
    assert row(task, example, {"text": ""})[0]


def test_pairs_and_turns_are_more_or_less_right(begin: Begin) -> None:
    task = begin("speaker-verification", Example("a", CLIP, "ann"), Example("b", CLIP, "bob"))
    pair = (CLIP, Path("some/1.wav"))
    assert row(task, Example("t: line 1", pair, True), {"score": 0.25}) == (
        False,
        ["0.wav | 1.wav", "the same", "0.25"],
    )
    assert row(task, Example("t: line 2", pair, False), {"score": 0.9})[1][1] == "different"

    example = Example("some/0.wav", CLIP, TURNS)
    said = {"turns": [[0.5, 1.2, "bob"]], "frames": [0, 1]}
    cells = ["0.wav", "0.60-1.25 bob; 2.00-3.00 ann", "0.50-1.20 bob"]
    assert row(begin("audio-frames", example), example, said) == (False, cells)


@pytest.mark.parametrize(
    ("accepted", "answer", "wrong"),
    [
        ((Answer("The Cat", 0), Answer("Cat", 4)), "cat", False),
        ((Answer("The Cat", 0), Answer("Cat", 4)), "cat sat", True),
        ((), "", False),
        ((), "cat", True),
    ],
)
def test_a_question_and_its_answers(begin: Begin, accepted: tuple[Answer, ...], answer: str, wrong: bool) -> None:
    example = Example("qa.json: data[0]", QUESTION, accepted)
    said = {"id": "q1", "answer": answer, "score": 0.5, "nbest": []}
    cells = ["who? | The Cat sat", " | ".join(each.text for each in accepted), answer]
    assert row(begin("question-answering", example), example, said) == (wrong, cells)


def test_the_right_option_is_spelled_out(begin: Begin) -> None:
    example = Example("c.jsonl: line 1", CHOICES, 0)
    task = begin("multiple-choice", example)
    assert row(task, example, {"answer": "good", "choice": 0}) == (False, ["it is | good | bad", "good", "good"])
    assert row(task, example, {"answer": "bad", "choice": 1}) == (True, ["it is | good | bad", "good", "bad"])


def test_tags_and_labels_are_right_as_a_whole(begin: Begin) -> None:
    example = Example("n.conll: line 1", ("ann", "ran"), ("B-PER", "O"))
    task = begin("token-classification", example)
    assert row(task, example, {"labels": ["B-PER", "O"]}) == (False, ["ann | ran", "B-PER | O", "B-PER | O"])
    assert row(task, example, {"labels": ["O", "O"]}) == (True, ["ann | ran", "B-PER | O", "O | O"])

    several = Example("t.csv: line 1", "<b> day", ("x", "y"))
    task = begin("text-classification", several, Example("t.csv: line 2", "day", ("x",)))
    assert row(task, several, {"labels": ["y", "x"], "scores": {}}) == (False, ["<b> day", "x | y", "y | x"])
    assert row(task, several, {"labels": ["y"], "scores": {}})[0]

    one = Example("t.csv: line 1", "day", "x")
    task = begin("text-classification", one, Example("t.csv: line 2", "night", "y"))
    assert not row(task, one, {"label": "x", "score": 0.9, "scores": {}})[0]
    assert row(task, one, {"label": "y", "score": 0.9, "scores": {}}) == (True, ["day", "x", "y"])

    number = Example("t.csv: line 1", ("day", "night"), "2.5")
    task = begin("text-classification", number, problem="regression")
    assert row(task, number, {"value": 2.25}) == (False, ["day | night", "2.5", "2.25"])


def test_a_passage_is_its_own_target(begin: Begin) -> None:
    example = Example("p.txt: line 1", "the cat", "the cat")
    said = {"loss": 3.0, "tokens": 5, "hits": 2}
    assert row(begin("fill-mask", example), example, said) == (False, ["the cat", "", "2 of 5 tokens"])


def test_a_long_thin_picture_is_squeezed(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Its map has its own size all the same; so has that of one that is not too long, which keeps its shape."""
    for side in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / side).mkdir(parents=True)
        for name, shape in (("long", (2, 200)), ("tall", (200, 2)), ("usual", (20, 40))):
            labels = np.zeros(shape, np.uint8)
            labels[: shape[0] // 2] = 1
            Image.fromarray(labels * 200).convert("RGB").save(tmp_path / f"images/{side}/{name}.png")
            Image.fromarray(labels).save(tmp_path / f"masks/{side}/{name}.png")
    (tmp_path / "classes.csv").write_text("index,name\n0,dark\n1,light\n")
    config = LabelledConfig(image_size=16)
    examples = [item for item in SemanticSegmentation.read(tmp_path, config) if isinstance(item, Example)]
    dev = [example for example in examples if example.split == "dev"]
    task = SemanticSegmentation.begin(encoders["vision"], examples, config)
    items, _ = usable(task, dev)
    sizes = {Path(item.example.source).stem: task.encode(item, None)["pixel_values"].shape[1:] for item in items}
    assert sizes == {"long": (16, 64), "tall": (64, 16), "usual": (16, 32)}
    found = evaluate(task, items, 8)
    assert [prediction["map"].shape for prediction in found.predictions] == [item.part for item in items]
    for each in items:  # a part to train on is a square as ever
        sample = task.encode(each, np.random.default_rng(0))
        assert sample["pixel_values"].shape[1:] == sample["labels"].shape == (16, 16)

    shaded, (name, mask, said) = row(task, found.examples[0], found.predictions[0])
    assert (shaded, name, mask) == (False, "long.png", "long.png")
    assert re.match(r"(dark|light) [\d.]+", said)

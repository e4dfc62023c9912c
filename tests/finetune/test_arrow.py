"""Data sets of the package `datasets`: saved to disk, as parquet, as arrow."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from data2vec.cli.main import main
from data2vec.data.labelled import audio, images, text
from data2vec.data.labelled.example import Example, Read, divide, opened
from data2vec.data.labelled.text import Answer, Question

datasets = pytest.importorskip("datasets", reason="needs the extra datasets")

QUICK = "--loader.workers 0 --train.precision fp32 --device cpu --train.updates 2 --data.batch 32"


def examples(read: Any) -> list[Example]:
    items: list[Read] = list(read)
    assert all(isinstance(item, Example) for item in items), items
    return items  # type: ignore[return-value]


def typed(rows: dict[str, Any], **kinds: Any) -> Any:
    made = datasets.Dataset.from_dict(rows)
    for name, kind in kinds.items():
        made = made.cast_column(name, kind)
    return made


def texts(count: int) -> Any:
    rows = {"text": ["good day", "bad day"] * count, "label": [1, 0] * count}
    return typed(rows, label=datasets.ClassLabel(names=["no", "yes"]))


def test_saved_to_disk_parquet_and_arrow_hold_the_same(tmp_path: Path) -> None:
    whole = {"train": texts(4), "validation": texts(2), "test": texts(1)}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    (tmp_path / "hub/data").mkdir(parents=True)
    for name, part in whole.items():
        for piece in range(2):
            file = tmp_path / f"hub/data/{name}-{piece:05d}-of-00002.parquet"
            part.shard(2, piece, contiguous=True).to_parquet(file)
    for source in (tmp_path / "saved", tmp_path / "hub"):
        splits = divide(text.read_texts(source))
        assert [(e.input, e.target) for e in splits.train] == [("good day", "yes"), ("bad day", "no")] * 4
        assert [(e.input, e.target) for e in splits.dev] == [("good day", "yes"), ("bad day", "no")] * 2
    alone = examples(text.read_texts(tmp_path / "saved/test"))
    (file,) = (tmp_path / "saved/test").glob("*.arrow")
    assert [e.target for e in alone] == [e.target for e in examples(text.read_texts(file))] == ["yes", "no"]
    assert alone[1].source == f"{tmp_path / 'saved/test'}: row 1"


def test_a_row_without_its_class_is_named(tmp_path: Path) -> None:
    rows = {"text": ["a", "b"], "label": [1, -1]}
    typed(rows, label=datasets.ClassLabel(names=["no", "yes"])).save_to_disk(tmp_path / "x")
    good, bad = text.read_texts(tmp_path / "x")
    assert isinstance(good, Example) and good.target == "yes"
    assert str(bad) == f"{tmp_path / 'x'}: row 1: has no label"


def test_recordings_and_pictures_stay_in_the_table(tmp_path: Path) -> None:
    wave, picture = io.BytesIO(), io.BytesIO()
    soundfile.write(wave, np.zeros(800, np.float32), 8000, format="WAV")
    Image.new("RGB", (4, 3), (9, 9, 9)).save(picture, format="PNG")
    labels = datasets.ClassLabel(names=["quiet", "loud"])
    rows = {"audio": [{"bytes": wave.getvalue(), "path": "a.wav"}], "label": [0], "text": ["hi  you"]}
    typed(rows, audio=datasets.Audio(), label=labels).save_to_disk(tmp_path / "audio")
    (clip,) = examples(audio.read_audio_classes(tmp_path / "audio"))
    (said,) = examples(audio.read_transcripts(tmp_path / "audio"))
    assert (clip.target, said.target) == ("quiet", "hi you")
    assert opened(clip.input) == opened(said.input) == wave.getvalue()
    rows = {"img": [{"bytes": picture.getvalue(), "path": None}], "label": [1]}
    typed(rows, img=datasets.Image(), label=labels).save_to_disk(tmp_path / "images")
    (shown,) = examples(images.read_image_classes(tmp_path / "images"))
    assert (opened(shown.input), shown.target) == (picture.getvalue(), "loud")


def test_tags_questions_choices_and_passages(tmp_path: Path) -> None:
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))
    typed({"tokens": [["ann", "ran"]], "ner_tags": [[1, 0]]}, ner_tags=tags).save_to_disk(tmp_path / "ner")
    (tagged,) = examples(text.read_tagged(tmp_path / "ner"))
    assert (tagged.input, tagged.target) == (("ann", "ran"), ("B-PER", "O"))
    answers = {"text": ["Ann"], "answer_start": [3]}
    asked = {"id": ["1"], "question": ["who?"], "context": ["It Ann."], "answers": [answers]}
    datasets.Dataset.from_dict(asked).save_to_disk(tmp_path / "qa")
    (question,) = examples(text.read_questions(tmp_path / "qa"))
    assert question.input == Question("1", "who?", "It Ann.")
    assert question.target == (Answer("Ann", 3),)
    swag = {"sent1": ["She sat."], "sent2": ["He"], "ending0": ["ran."], "ending1": ["fell."], "label": [1]}
    datasets.Dataset.from_dict(swag).save_to_disk(tmp_path / "swag")
    (choice,) = examples(text.read_choices(tmp_path / "swag"))
    assert (choice.input.options, choice.target) == (("He ran.", "He fell."), 1)
    datasets.Dataset.from_dict({"text": ["one", "", "two"]}).save_to_disk(tmp_path / "plain")
    assert [e.input for e in examples(text.read_passages(tmp_path / "plain", 0.1))] == ["one", "two"]


@pytest.mark.parametrize("task", ["text-classification", "audio-classification", "asr"])
def test_from_a_saved_data_set_to_a_score(
    task: str, encoders: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "text-classification":
        whole = {"train": texts(4), "validation": texts(2)}
    else:
        files = sorted((labelled / "clips").glob("*.wav"))[:6]
        rows = {
            "audio": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "text": ["HI", "LO"] * 3,
            "label": [1, 0] * 3,
        }
        part = typed(rows, audio=datasets.Audio(), label=datasets.ClassLabel(names=["low", "high"]))
        whole = {"train": part, "validation": part}
    datasets.DatasetDict(whole).save_to_disk(tmp_path / "saved")
    model = encoders["text" if task.startswith("text") else "audio"]
    where = [task, str(tmp_path / "saved"), "--model", str(model), "--out", str(tmp_path / "run")]
    assert main(["finetune", *where, *QUICK.split()]) == 0
    capsys.readouterr()
    assert main(["evaluate", task, str(tmp_path / "saved"), "--model", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)

"""Damaged files are named before training, or left out when asked; and what a run read its data with goes on."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data2vec.tasks.predict
from data2vec.cli.evaluate import trained
from data2vec.cli.main import main
from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, divide
from data2vec.errors import BadSample, UserError
from data2vec.recipes.finetune import finetune_preset
from data2vec.tasks.asr import SpeechRecognition
from data2vec.tasks.config import LabelledConfig
from data2vec.tasks.inputs import expand_files
from data2vec.tasks.run import usable
from data2vec.tasks.speakers import SpeakerVerification
from data2vec.tasks.task import Item

QUICK = "--loader.workers 0 --train.precision fp32 --device cpu --train.updates 1 --data.batch 4"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for side in ("train", "dev"):
        for name in ("a", "b"):
            folder = tmp_path / "pictures" / side / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    bad = tmp_path / "pictures/dev/b/1.png"
    bad.write_bytes(bad.read_bytes()[:80])
    return tmp_path / "pictures"


def test_a_damaged_picture_to_be_judged_by(
    pictures: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "image-classification", str(pictures), "--model", str(encoders["vision"]), *QUICK.split()]
    assert main([*command, "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert "1.png" in said and "--skip-bad" in said
    assert not (tmp_path / "a").exists()

    assert main([*command, "--out", str(tmp_path / "b"), "--skip-bad"]) == 0
    skipped = [json.loads(line) for line in (tmp_path / "b/skipped.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in skipped] == ["1.png"]
    (tmp_path / "b/model").rename(tmp_path / "alone")  # without the run's settings beside it
    judge = ["evaluate", "image-classification", str(pictures), "--model", str(tmp_path / "alone"), "--out"]
    assert main([*judge, str(tmp_path / "c")]) == 2
    assert main([*judge, str(tmp_path / "c"), "--skip-bad"]) == 0
    assert len((tmp_path / "c/predictions.jsonl").read_text().splitlines()) == 5

    files = [str(pictures / f"dev/b/{i}.png") for i in range(3)]
    assert main(["predict", str(tmp_path / "alone"), *files]) == 2
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "alone"), *files, "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert [line.split("\t")[0] for line in said.out.splitlines()] == [files[0], files[2]]
    assert f"left out: {files[1]}" in said.err

    (tmp_path / "empty").mkdir()
    given = [files[0], "nothere.png", str(tmp_path / "empty"), "x" * 300]
    assert main(["predict", str(tmp_path / "alone"), *given]) == 2
    assert "nothere.png: no such file or folder" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "alone"), *given, "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 and len(said.err.splitlines()) == 3
    assert "left out: nothere.png: no such file or folder" in said.err
    assert main(["predict", str(tmp_path / "alone"), "nothere.png", "--skip-bad"]) == 2
    assert main(["predict", str(tmp_path / "alone"), files[0], "--batch", "-1"]) == 2
    judge[1] = "semantic-segmentation"
    assert main([*judge, str(tmp_path / "c")]) == 2
    assert "does image-classification, not semantic-segmentation" in capsys.readouterr().err


def test_blank_lines_of_inputs_are_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def answer(folder: str, inputs: list[str], **_: Any) -> tuple[list[Any], list[Any]]:
        asked.extend(inputs)
        return [], []

    monkeypatch.setattr(data2vec.tasks.predict, "predict_inputs", answer)
    monkeypatch.setattr("sys.stdin", io.StringIO("a.wav\n\n  \nb c.wav\n"))
    assert main(["predict", str(tmp_path / "model"), "-"]) == 0
    assert asked == ["a.wav", "b c.wav"]


def test_a_file_for_a_model_that_reads_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhi\n")
    assert expand_files("some words", ()) == ["some words"]
    with pytest.raises(UserError, match=r"a\.csv: is a file, and this model reads texts"):
        expand_files(str(tmp_path / "a.csv"), ())


def test_a_pair_with_a_damaged_clip_is_left_out_whole(
    encoders: dict[str, Path], labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each clip of many pairs is read once."""
    config = finetune_preset("speaker-verification", "little")
    small = {"xvector_output_dim": 8, "tdnn_dim": [8, 8], "tdnn_kernel": [3, 1], "tdnn_dilation": [1, 1]}
    splits = divide(SpeakerVerification.read(labelled / "clips", config.data))
    task = SpeakerVerification.begin(encoders["audio"], splits.train, config.data, **small)
    read: list[str] = []

    def encode(item: Item, rng: None) -> Sample:
        read.append(Path(item.part).name)
        if read[-1] == "3.wav":
            raise BadSample(item.part, "is damaged")
        return {}

    monkeypatch.setattr(task, "encode", encode)
    items, skipped = usable(task, splits.dev, skip_bad=True)
    assert sorted(read) == sorted(f"{i}.wav" for i in range(16))
    assert len(skipped) == 1 and len({id(item.example) for item in items}) == len(splits.dev) - 1
    assert all(Path(file).name != "3.wav" for item in items for file in item.example.input)


def test_predictions_read_text_as_the_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = finetune_preset("text-classification", "little")
    config = replace(config, data=replace(config.data, lowercase=True, max_length=7))
    (tmp_path / "model").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    assert trained(tmp_path) == trained(tmp_path / "model") == config
    assert trained(tmp_path / "elsewhere" / "model") is None
    asked: list[LabelledConfig] = []

    def answer(folder: str, inputs: list[str], *, data: LabelledConfig, **_: Any) -> tuple[list[Any], list[Any]]:
        asked.append(data)
        return [], []

    monkeypatch.setattr(data2vec.tasks.predict, "predict_inputs", answer)
    assert main(["predict", str(tmp_path / "model"), "Hi"]) == 0
    assert asked == [replace(config.data, max_seconds=30.0)]


def test_a_recogniser_writes_in_its_own_case(encoders: dict[str, Path]) -> None:
    task = SpeechRecognition.begin(encoders["audio"], [Example("a", Path("a.wav"), "ADA RAN")], LabelledConfig())
    for text in ("ada ran", "Ada Ran", "ADA RAN"):
        assert task.units(text) == list("ADA|RAN")
    assert "Z" in task.units("Ada Z")

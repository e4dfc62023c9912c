"""``data2vec probe``: features that tell classes apart score, labels by chance do not, mistakes are one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data2vec.cli.main import main
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.bpe import save_bpe, train_bpe
from data2vec.processing.vision import BeitImageProcessor
from data2vec.recipes.presets import preset

soundfile = pytest.importorskip("soundfile")
SIZE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Path]:
    """An untrained model of each modality, with its processor."""
    torch.manual_seed(0)
    folders = {name: tmp_path / f"{name}-model" for name in ("audio", "vision", "text")}
    Data2VecAudioModel(preset("audio", "tiny").model.replace(**SIZE)).save_pretrained(folders["audio"])
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folders["audio"])
    Data2VecVisionModel(preset("vision", "tiny").model.replace(**SIZE)).save_pretrained(folders["vision"])
    BeitImageProcessor(size=32, crop_size=32).save_pretrained(folders["vision"])
    tokenizer = train_bpe(["the red fox and the blue bird"] * 3, 270)
    vocabulary = {"vocab_size": tokenizer.get_vocab_size(), "mask_token_id": None}
    Data2VecTextModel(preset("text", "tiny").model.replace(**SIZE, **vocabulary)).save_pretrained(folders["text"])
    save_bpe(tokenizer, folders["text"], max_length=64)
    return folders


def labelled(modality: str, root: Path, rng: np.random.Generator) -> Path:
    """Two classes that any features tell apart: low and high tones, dark and bright pictures, two sets of words."""
    for kind in (0, 1):
        folder = root / f"class{kind}"
        folder.mkdir(parents=True)
        for index in range(20):
            if modality == "audio":
                time = np.arange(4000 + 10 * index) / 16_000
                wave = np.sin(2 * np.pi * (200 + 2000 * kind) * time) + 0.01 * rng.standard_normal(len(time))
                soundfile.write(folder / f"{index}.wav", wave / 2, 16_000)
            elif modality == "vision":
                pixels = rng.integers(150 * kind, 100 + 150 * kind, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
            else:
                words = rng.choice([["red", "fox"], ["blue", "bird"]][kind], 8)
                (folder / f"{index}.txt").write_text(" ".join(words))
    return root


def percentages(said: str) -> list[float]:
    return [float(value) for value in re.findall(r"([0-9.]+) \+-", said)]


@pytest.mark.parametrize("modality", ["audio", "vision", "text"])
def test_classes_that_differ_are_found(
    modality: str, saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = labelled(modality, tmp_path / "labelled", np.random.default_rng(0))
    assert main(["probe", str(saved[modality]), str(folder)]) == 0
    said = capsys.readouterr().out
    assert "32 items to train the probe, 8 held out, 2 classes" in said
    linear, neighbours, *untrained = percentages(said)
    assert min(linear, neighbours) >= 87.5
    assert len(untrained) == 2


def test_a_model_of_data2vec_2_can_be_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = {**SIZE, "num_hidden_layers": 3, "prenet_depth": 1}
    Data2Vec2VisionModel(preset("vision", "v2-tiny").model.replace(**size)).save_pretrained(tmp_path / "model")
    BeitImageProcessor(size=32, crop_size=32).save_pretrained(tmp_path / "model")
    folder = labelled("vision", tmp_path / "labelled", np.random.default_rng(0))
    assert main(["probe", str(tmp_path / "model"), str(folder)]) == 0
    assert min(percentages(capsys.readouterr().out)) >= 87.5


def test_scores_as_json(saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = labelled("vision", tmp_path / "labelled", np.random.default_rng(0))
    assert main(["probe", str(saved["vision"]), str(folder), "--json", "--no-untrained"]) == 0
    ((name, probes),) = json.loads(capsys.readouterr().out).items()
    assert name == str(saved["vision"])
    assert probes["items"] == [32, 8] and probes["classes"] == 2
    assert probes["linear"]["accuracy"] >= 0.875
    assert probes["linear"]["features"] in probes["linear"]["candidates"]


def test_labels_by_chance_score_by_chance(
    saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    for index in range(200):
        folder = tmp_path / "random" / str(rng.integers(2))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    assert main(["probe", str(saved["vision"]), str(tmp_path / "random")]) == 0
    assert all(25 <= value <= 75 for value in percentages(capsys.readouterr().out))


def test_mistakes_are_one_line(saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        ([str(tmp_path), str(tmp_path)], "no config.json of a data2vec model"),
        ([str(saved["audio"]), str(tmp_path / "nowhere")], "does not exist"),
        ([str(saved["audio"]), str(saved["vision"])], "holds no .aif"),
    ):
        assert main(["probe", *arguments]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1

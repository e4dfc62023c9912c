"""``data2vec pretrain`` from files to a model, in each modality, and what happens when the user is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data2vec.cli.main import main
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.processing.bpe import load_bpe, special_ids

SMALL = {
    "audio": """--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64
        --model.conv-dim 16 16 16 16 16 16 16 --data.batch-samples 64000 --data.max-samples 16000
        --data.min-crop 8000 --data.concatenate 16000""",
    "vision": "--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64 --data.batch-images 4",
    "text": """--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64
        --data.vocab-size 300 --data.batch-tokens 256""",
}
QUICK = "--preset tiny --loader.workers 0 --train.log-every 1 --train.precision fp32 --device cpu"
MODELS = {"audio": Data2VecAudioModel, "vision": Data2VecVisionModel, "text": Data2VecTextModel}


def arguments(modality: str, files: Path, out: Path, *more: str) -> list[str]:
    return ["pretrain", modality, str(files), "--out", str(out), *QUICK.split(), *SMALL[modality].split(), *more]


def pretrain(modality: str, files: Path, out: Path, *more: str) -> int:
    return main(arguments(modality, files, out, *more))


def losses(out: Path) -> list[float]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each modality, made here."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    folders = {name: root / name for name in MODELS}
    for folder in folders.values():
        folder.mkdir()
    for index in range(12):
        t = np.arange(6000 + 500 * index) / 16_000
        sound = np.sin(2 * math.pi * (150 + 60 * index) * t) + 0.1 * rng.standard_normal(len(t))
        with wave.open(str(folders["audio"] / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((8000 * sound).astype("<i2").tobytes())
        pixels = rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folders["vision"] / f"{index}.png")
        words = " ".join(rng.choice(["to", "be", "or", "not", "that", "is", "the", "question"], 120))
        (folders["text"] / f"{index}.txt").write_text(words + "\n")
    return folders


@pytest.mark.parametrize("modality", MODELS)
def test_from_files_to_a_model(modality: str, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs" / modality
    assert pretrain(modality, files[modality], out, "--train.updates", "3") == 0
    assert len(losses(out)) == 3
    assert all(math.isfinite(loss) and loss > 0 for loss in losses(out))
    model = MODELS[modality].from_pretrained(out / "model")
    assert model.config.hidden_size == 32
    fresh = MODELS[modality](model.config)
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=False)]
    assert any(moved)
    settings = json.loads((out / "run.json").read_text())
    assert settings["modality"] == modality
    assert settings["train"]["updates"] == 3
    assert Path(settings["source"]) == files[modality]


@pytest.mark.parametrize("modality", MODELS)
def test_data2vec_2_from_files_to_a_model(modality: str, files: dict[str, Path], tmp_path: Path) -> None:
    more = ("--preset", "v2-tiny", "--copies", "2", "--train.updates", "2")
    assert pretrain(modality, files[modality], tmp_path / "run", *more) == 0
    assert all(math.isfinite(loss) and loss > 0 for loss in losses(tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["model_type"] == f"data2vec2-{modality}"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["version"] == 2


@pytest.mark.parametrize("modality", MODELS)
def test_transformers_loads_what_was_trained(modality: str, files: dict[str, Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle here")
    assert pretrain(modality, files[modality], tmp_path / "run", "--train.updates", "1") == 0
    folder = tmp_path / "run" / "model"
    theirs, report = getattr(transformers, MODELS[modality].__name__).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    ours = MODELS[modality].from_pretrained(folder)
    name, value = {
        "audio": ("input_values", torch.randn(2, 4000)),
        "vision": ("pixel_values", torch.randn(2, 3, 32, 32)),
        "text": ("input_ids", torch.randint(5, 200, (2, 20))),
    }[modality]
    with torch.no_grad():
        mine, other = (model.eval()(**{name: value}).last_hidden_state for model in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_the_tokenizer_lies_beside_the_model_and_fits_it(files: dict[str, Path], tmp_path: Path) -> None:
    assert pretrain("text", files["text"], tmp_path / "run", "--train.updates", "1") == 0
    tokenizer = load_bpe(tmp_path / "run" / "model")
    config = Data2VecTextModel.from_pretrained(tmp_path / "run" / "model").config
    assert config.vocab_size == tokenizer.get_vocab_size() <= 300
    assert special_ids(tokenizer)["mask"] == config.mask_token_id
    assert special_ids(tokenizer)["pad"] == config.pad_token_id


def test_resume_continues_bit_for_bit_with_the_values_of_the_run(files: dict[str, Path], tmp_path: Path) -> None:
    """The resumed command says nothing about the model or the optimizer: the run folder knows."""
    save = ("--train.save-every", "2", "--optim.lr", "3e-4")
    assert pretrain("audio", files["audio"], tmp_path / "whole", *save, "--train.updates", "4") == 0
    assert pretrain("audio", files["audio"], tmp_path / "parts", *save, "--train.updates", "4") == 0
    newest = max((tmp_path / "parts" / "checkpoints").iterdir())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    again = ["pretrain", "audio", str(files["audio"]), "--out", str(tmp_path / "parts"), "--resume", "--device", "cpu"]
    assert main(again) == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_berts_mask_shows_random_tokens_and_still_hides_the_masked(files: dict[str, Path], tmp_path: Path) -> None:
    mask = ("--mask.prob", "0.5", "--mask.random-prob", "0.2", "--mask.keep-prob", "0.1", "--train.updates", "2")
    assert pretrain("text", files["text"], tmp_path / "run", *mask) == 0
    assert all(loss > 0 for loss in losses(tmp_path / "run"))


WRONG = {
    "missing path": (["nowhere"], "nowhere does not exist"),
    "empty folder": (["empty"], "holds no .aif"),
    "unknown preset": (
        ["audio", "--preset", "huge"],
        "unknown preset 'huge' for audio; known: tiny, small, base, audioset, v2-tiny",
    ),
    "out of range": (["audio", "--optim.lr", "-1"], "lr"),
    "model out of range": (["audio", "--model.hidden-size", "0"], "hidden_size"),
    "parts that do not fit": (["audio", "--objective.target.layers", "7"], "objective.target.layers=7"),
    "no such device": (["audio", "--device", "abacus"], "device"),
    "nothing to resume": (["audio", "--resume"], "holds no run to resume"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_leaves_nothing(
    case: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source, *more), says = WRONG[case]
    (tmp_path / "empty").mkdir()
    path = files.get(source, tmp_path / source)
    assert main(["pretrain", "audio", str(path), "--preset", "tiny", "--out", str(tmp_path / "run"), *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("data2vec: error: ") and said.err.count("\n") == 1
    assert says in said.err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_folder_in_use_is_refused_and_untouched(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert pretrain("vision", files["vision"], out, "--train.updates", "1") == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert pretrain("vision", files["vision"], out) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_bad_files_are_named_and_the_run_goes_on(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for file in files["audio"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "broken.wav").write_bytes(b"not audio")
    allow = ("--loader.max-bad-share", "0.5", "--train.updates", "1")
    assert pretrain("audio", folder, tmp_path / "run", *allow) == 0
    assert "broken.wav" in (tmp_path / "run" / "skipped.jsonl").read_text()
    assert "1 files could not be used" in capsys.readouterr().err
    assert pretrain("audio", folder, tmp_path / "strict", "--train.updates", "1") == 2
    assert "max_bad_share" in capsys.readouterr().err


def start(modality: str, files: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, running until a first checkpoint is there."""
    command = [sys.executable, "-m", "data2vec", *arguments(modality, files, out, *more)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    patience = time.monotonic() + 60
    while not any((out / "checkpoints").glob("update-*")):
        assert process.poll() is None and time.monotonic() < patience
        time.sleep(0.05)
    return process


LONG = ("--loader.workers", "2", "--train.updates", "40", "--train.save-every", "2", "--train.keep-last", "2")


def test_sigterm_to_the_whole_group_saves_and_stops(files: dict[str, Path], tmp_path: Path) -> None:
    """As schedulers send it: the loader's workers get it too."""
    long = ("--loader.workers", "2", "--train.updates", "100000", "--train.save-every", "2")
    process = start("audio", files["audio"], tmp_path / "run", *long)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    saved = max((tmp_path / "run" / "checkpoints").iterdir()).name
    assert len(losses(tmp_path / "run")) == int(saved.rpartition("-")[2])


def test_kill_9_then_resume_gives_the_uninterrupted_run(files: dict[str, Path], tmp_path: Path) -> None:
    assert pretrain("audio", files["audio"], tmp_path / "whole", *LONG) == 0
    process = start("audio", files["audio"], tmp_path / "killed", *LONG)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) < 40
    assert pretrain("audio", files["audio"], tmp_path / "killed", *LONG, "--resume") == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for file in ("model.safetensors", "config.json"):
        whole, killed = (tmp_path / name / "model" / file for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()

"""``data2vec pretrain --init`` and ``--method``: from one run, and from the original's files, to the next."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data2vec.cli.main import main
from data2vec.cli.pretrain import preset_name, read_arguments
from data2vec.conversion.convert import convert
from data2vec.conversion.loading import load_checkpoint
from data2vec.errors import UserError
from data2vec.training.pretrain import build_objective

SMALL = """--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64 --data.batch-images 4
    --loader.workers 0 --train.log-every 1 --train.precision fp32 --device cpu --preset tiny"""
QUICK = """--data.batch-images 4 --loader.workers 0 --train.log-every 1 --train.precision fp32 --device cpu
    --preset tiny --train.updates 1 --optim.lr 1e-20"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (36, 36, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module", params=["v1", "v2"])
def run(request: pytest.FixtureRequest, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "first"
    more = ["--train.updates", "2", "--method", request.param]
    assert main(["pretrain", "vision", str(pictures), "--out", str(out), *SMALL.split(), *more]) == 0
    return out, request.param


def test_a_run_keeps_teacher_and_head_beside_the_model(run: tuple[Path, str]) -> None:
    out, method = run
    assert json.loads((out / "run.json").read_text())["version"] == int(method[1])
    kept = load_file(out / "model" / "pretraining.safetensors")
    checkpoint = load_checkpoint(out / "model")
    assert {name.split(".")[0] for name in kept} == {"teacher", "predictor"}
    config = read_arguments("vision", ["x", "--out", "y", "--init", str(out), "--preset", "tiny", "--method", method])
    task = build_objective(config.config)
    assert checkpoint.restore(task) == []
    predictor = task.get_submodule("head" if method == "v1" else "decoder")
    assert all(torch.equal(predictor.state_dict()[name], tensor) for name, tensor in checkpoint.predictor.items())
    teacher = task.teacher.encoder.state_dict()
    assert all(torch.equal(teacher[name], tensor) for name, tensor in checkpoint.teacher.items())


def test_continues_where_the_first_run_ended(
    run: tuple[Path, str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, method = run
    out = tmp_path / "second"
    more = ["--init", str(first), "--method", method]
    assert main(["pretrain", "vision", str(pictures), "--out", str(out), *QUICK.split(), *more]) == 0
    head = "head" if method == "v1" else "decoder"
    assert f"init       student, teacher, {head} from {first}" in capsys.readouterr().err
    old, new = load_checkpoint(first / "model"), load_checkpoint(out / "model")
    assert old.config.hidden_size == new.config.hidden_size == 32  # type: ignore[attr-defined]
    for name, tensor in old.tensors.items():  # a learning rate of nearly nothing
        torch.testing.assert_close(new.tensors[name], tensor, rtol=0, atol=1e-4, msg=name)


def test_says_what_a_checkpoint_lacks(
    run: tuple[Path, str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, method = run
    bare = tmp_path / "bare"
    convert(first / "model", bare)
    (bare / "pretraining.safetensors").unlink()
    more = ["--init", str(bare), "--method", method]
    assert main(["pretrain", "vision", str(pictures), "--out", str(tmp_path / "run"), *QUICK.split(), *more]) == 0
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("init"))
    assert said.split("; ")[0].endswith(f"student from {bare / 'model.safetensors'}")
    assert said.endswith(f"not in it: teacher (the student's), {'head' if method == 'v1' else 'decoder'}")


def test_original_files_of_a_run_begin_another(run: tuple[Path, str], pictures: Path, tmp_path: Path) -> None:
    first, method = run
    file = tmp_path / "checkpoint.pth"
    if method == "v2":
        with pytest.raises(UserError, match="did not come from fairseq"):
            convert(first / "model", file, to="fairseq")
        return
    convert(first / "model", file, to="fairseq", check=True)
    more = ["--init", str(file)]
    heads = ["--model.num-attention-heads", "2"]  # which no tensor shows
    assert (
        main(["pretrain", "vision", str(pictures), "--out", str(tmp_path / "run"), *QUICK.split(), *more, *heads]) == 0
    )


def test_transformers_loads_what_a_run_wrote(run: tuple[Path, str]) -> None:
    transformers = pytest.importorskip("transformers")
    first, method = run
    if method == "v2":
        pytest.skip("transformers has no data2vec 2")
    _, info = transformers.Data2VecVisionModel.from_pretrained(first / "model", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all(key.startswith("pooler.") for key in info["missing_keys"])


def test_method_and_preset() -> None:
    assert preset_name("tiny", None) == "tiny"
    assert preset_name("tiny", "v1") == "tiny"
    assert preset_name("tiny", "v2") == preset_name("v2-tiny", "v2") == preset_name("v2-tiny", None) == "v2-tiny"
    with pytest.raises(UserError, match="--method v1 contradicts --preset v2-tiny"):
        preset_name("v2-tiny", "v1")
    with pytest.raises(UserError, match="unknown preset 'v2-audioset'"):
        read_arguments("audio", ["x", "--out", "y", "--preset", "audioset", "--method", "v2"])


def test_wrong_checkpoints(run: tuple[Path, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, method = run
    other = "v2" if method == "v1" else "v1"
    common = [str(tmp_path), "--out", str(tmp_path / "out"), "--init", str(first), "--preset", "tiny"]
    assert main(["pretrain", "vision", *common, "--method", other]) == 2
    assert f"is data2vec {method[1]}, the preset is data2vec {other[1]}: --method {method}" in capsys.readouterr().err
    assert main(["pretrain", "audio", *common]) == 2
    assert "is a model for vision: use `data2vec pretrain vision`" in capsys.readouterr().err
    assert main(["pretrain", "vision", *common[:3], "--init", str(tmp_path / "none.pt")]) == 2
    assert "none.pt" in capsys.readouterr().err

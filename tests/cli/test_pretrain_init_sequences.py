"""``data2vec pretrain --init`` for speech and text: architecture, weights, and for text the tokenizer follow."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data2vec.cli.main import main
from data2vec.conversion.convert import convert
from data2vec.conversion.loading import load_checkpoint
from data2vec.models.text.model import Data2VecTextModel
from data2vec.processing.bpe import load_bpe, save_bpe, train_bpe

SIZE = "--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64"
DATA = {
    "audio": "--data.batch-samples 64000 --data.max-samples 16000 --data.min-crop 8000 --data.concatenate 16000",
    "text": "--data.batch-tokens 256 --data.block-size 32",
}
MODEL = {
    "audio": f"{SIZE} --model.conv-dim 16 16 16 16 16 16 16",
    "text": f"{SIZE} --data.vocab-size 280 --model.position-embedding-type absolute",  # fairseq has no other
}
COMMON = "--preset tiny --loader.workers 0 --train.log-every 1 --train.precision fp32 --device cpu"
STILL = "--train.updates 1 --optim.lr 1e-20"  # a learning rate of nearly nothing
WORDS = ["to", "be", "or", "not", "that", "is", "the", "question"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    folders = {name: root / name for name in DATA}
    for folder in folders.values():
        folder.mkdir()
    for index in range(6):
        soundfile.write(folders["audio"] / f"{index}.wav", 0.1 * rng.standard_normal(12_000), 16_000)
        (folders["text"] / f"{index}.txt").write_text(" ".join(rng.choice(WORDS, 120)) + "\n")
    return folders


def pretrain(modality: str, method: str, files: dict[str, Path], out: Path, *more: str) -> int:
    few = ["--copies", "2"] if method == "v2" else []
    options = [*COMMON.split(), *DATA[modality].split(), "--method", method, *few, *more]
    return main(["pretrain", modality, str(files[modality]), "--out", str(out), *options])


Run = tuple[Path, str, str]


@pytest.fixture(scope="module", params=["audio v1", "audio v2", "text v1", "text v2"])
def run(request: pytest.FixtureRequest, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    modality, method = request.param.split()
    out = tmp_path_factory.mktemp("runs") / "first"
    model = MODEL[modality] if method == "v1" else MODEL[modality].partition("--model.position-embedding-type")[0]
    assert pretrain(modality, method, files, out, *model.split(), "--train.updates", "2") == 0
    return out, modality, method


def continued(run: Run, files: dict[str, Path], out: Path, init: Path, *more: str) -> int:
    _, modality, method = run
    return pretrain(modality, method, files, out, *STILL.split(), "--init", str(init), *more)


def test_continues_where_the_first_run_ended(
    run: Run, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, modality, method = run
    assert continued(run, files, tmp_path / "second", first) == 0
    head = "head" if method == "v1" else "decoder"
    assert f"init       student, teacher, {head} from {first}" in capsys.readouterr().err
    old, new = load_checkpoint(first / "model"), load_checkpoint(tmp_path / "second" / "model")
    assert old.config.to_dict() == new.config.to_dict()
    assert old.tensors.keys() == new.tensors.keys()
    for name, tensor in old.tensors.items():
        torch.testing.assert_close(new.tensors[name], tensor, rtol=0, atol=1e-4, msg=name)
    if modality == "text":
        tokens = [load_bpe(folder / "model").get_vocab() for folder in (first, tmp_path / "second")]
        assert tokens[0] == tokens[1]


def test_original_files_of_a_run_begin_another(
    run: Run, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, modality, method = run
    if method == "v2":
        pytest.skip("a data2vec 2 model that did not come from fairseq does not go there")
    convert(first / "model", tmp_path / "original.pt", to="fairseq", check=True)
    more = []
    if modality == "text":
        assert continued(run, files, tmp_path / "run", tmp_path / "original.pt") == 2
        assert "give its own with --data.tokenizer" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
        more = ["--data.tokenizer", str(first / "model")]
    assert continued(run, files, tmp_path / "run", tmp_path / "original.pt", *more) == 0
    assert "student, teacher, head from" in capsys.readouterr().err
    old, new = load_checkpoint(first / "model"), load_checkpoint(tmp_path / "run" / "model")
    for name in old.predictor:
        torch.testing.assert_close(new.predictor[name], old.predictor[name], rtol=0, atol=1e-4, msg=name)
    for name in old.base.keys() - {"mask_embedding", "encoder.token_types.weight", "encoder.positions.weight"}:
        if not name.startswith("pooler."):
            torch.testing.assert_close(new.base[name], old.base[name], rtol=0, atol=1e-4, msg=name)


@pytest.fixture
def text_run(run: Run) -> Run:
    if run[1] != "text":
        pytest.skip("text alone has a vocabulary")
    return run


def test_rows_beyond_the_tokenizer_are_kept(text_run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    first, _, method = text_run
    if method == "v1":
        model = Data2VecTextModel.from_pretrained(first / "model")
        model.resize_token_embeddings(320)
        model.save_pretrained(tmp_path / "grown")
        shutil.copy(first / "model" / "tokenizer.json", tmp_path / "grown")
        assert continued(text_run, files, tmp_path / "run", tmp_path / "grown") == 0
        new = load_checkpoint(tmp_path / "run" / "model")
        assert new.config.vocab_size == 320  # type: ignore[attr-defined]
        words = new.base["frontend.words.weight"]
        torch.testing.assert_close(words, model.state_dict()["frontend.words.weight"], rtol=0, atol=1e-4)
    settings = json.loads((first / "run.json").read_text())
    assert settings["model"]["vocab_size"] == load_bpe(first / "model").get_vocab_size()


def test_a_tokenizer_of_more_tokens_is_refused(
    text_run: Run, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = text_run[0]
    save_bpe(train_bpe([" ".join(WORDS), "another vocabulary of more words"] * 9, 300), tmp_path / "bpe", 32)
    rows = load_bpe(first / "model").get_vocab_size()
    assert load_bpe(tmp_path / "bpe").get_vocab_size() > rows
    assert continued(text_run, files, tmp_path / "run", first, "--data.tokenizer", str(tmp_path / "bpe")) == 2
    assert f"has a word table of {rows} rows: use the tokenizer it was trained with" in capsys.readouterr().err

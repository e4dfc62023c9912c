"""What `convert` writes beside the weights predicts at once, in our classes and in transformers'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conversion.made import content, ctc_content, foreign, read_dump, save

from data2vec.cli import main as cli
from data2vec.conversion.convert import convert
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.torch_files import read_torch_file
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.ctc import Wav2Vec2CTCTokenizer
from data2vec.processing.text import RobertaTokenizer
from data2vec.processing.vision import BeitImageProcessor

LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "T"]


def test_ctc_with_the_dictionary_in_the_checkpoint(
    oracle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq pickles its `Dictionary` into the task state: its symbols are read from the inert record."""
    made = ctc_content(read_dump(oracle_dir, "audio"))
    state = {"symbols": LETTERS, "count": [1] * 7, "indices": {s: i for i, s in enumerate(LETTERS)}}
    made["task_state"]["target_dictionary"] = foreign(monkeypatch, "fairseq.data.dictionary", "Dictionary", state)
    torch.save(made, tmp_path / "ctc.pt")
    report = convert(tmp_path / "ctc.pt", tmp_path / "ours", check=True)
    assert report.ignored["fairseq.data.dictionary.Dictionary"] == 1
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "ours")
    # two frames of E, a blank, T, the word end
    assert tokenizer.decode([5, 5, 0, 6, 4]) == "ET"
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "ours")
    assert extractor.do_normalize
    assert extractor.return_attention_mask


def test_a_dictionary_of_another_model_is_refused(oracle_dir: Path, tmp_path: Path) -> None:
    torch.save(ctc_content(read_dump(oracle_dir, "audio")), tmp_path / "ctc.pt")
    (tmp_path / "dict.ltr.txt").write_text("| 1\nE 1\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"6 symbols, but the CTC head has 7 rows"):
        convert(tmp_path / "ctc.pt", tmp_path / "ours")


def test_without_a_dictionary_the_report_says_so(oracle_dir: Path, tmp_path: Path) -> None:
    torch.save(ctc_content(read_dump(oracle_dir, "audio")), tmp_path / "ctc.pt")
    report = convert(tmp_path / "ctc.pt", tmp_path / "ours")
    assert "--dictionary" in report.files["vocab.json"]


def test_text_tokenizer_from_dict_and_gpt2_files(oracle_dir: Path, tmp_path: Path) -> None:
    """fairseq's dict.txt numbers GPT-2's tokens; the result is a RoBERTa tokenizer of the model's vocabulary."""
    path = save(tmp_path, read_dump(oracle_dir, "text"), "text")
    letters = [chr(n) for n in range(33, 127)][:94]
    tokens = {letter: index for index, letter in enumerate(letters)} | {"ab": 94}
    (tmp_path / "encoder.json").write_text(json.dumps(tokens), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b\n", encoding="utf-8")
    wanted = [94, *range(94)]  # 4 special + 95 + <mask> = 100
    (tmp_path / "dict.txt").write_text("".join(f"{n} 1\n" for n in wanted), encoding="utf-8")
    report = convert(path, tmp_path / "ours", check=True)
    assert report.files["tokenizer.json"].startswith("100 tokens")
    tokenizer = RobertaTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer("abc")["input_ids"] == [0, 4, 5 + letters.index("c"), 2]
    assert tokenizer.mask_token_id == 99


def test_text_dictionary_of_another_model_is_refused(oracle_dir: Path, tmp_path: Path) -> None:
    path = save(tmp_path, read_dump(oracle_dir, "text"), "text")
    (tmp_path / "encoder.json").write_text('{"a": 0}', encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n", encoding="utf-8")
    (tmp_path / "dict.txt").write_text("0 1\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="6 symbols, the model has 100"):
        convert(path, tmp_path / "ours")


@pytest.mark.parametrize(("imagenet", "mean"), [(True, 0.485), (False, 0.5)])
def test_images_are_normalised_as_in_training(oracle_dir: Path, tmp_path: Path, imagenet: bool, mean: float) -> None:
    made = content(read_dump(oracle_dir, "vision"), "vision")
    made["args"].imagenet_default_mean_and_std = imagenet
    torch.save(made, tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "ours")
    assert "stored settings" in report.files["preprocessor_config.json"]
    processor = BeitImageProcessor.from_pretrained(tmp_path / "ours")
    assert processor.image_mean[0] == mean
    pixels = processor(np.zeros((90, 70, 3), np.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("tuned", "mean"), [(False, 0.485), (True, 0.5)])
def test_without_settings_the_published_commands_decide(
    oracle_dir: Path, tmp_path: Path, tuned: bool, mean: float
) -> None:
    weights = dict(read_dump(oracle_dir, "vision")["student"])
    if tuned:
        weights |= {"head.weight": torch.ones(2, 48), "head.bias": torch.ones(2)}
        weights |= {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.ones(48)}
        weights = {n: t for n, t in weights.items() if not n.startswith(("norm.", "lm_head."))}
    torch.save({"module": weights}, tmp_path / "c.pth")
    convert(tmp_path / "c.pth", tmp_path / "ours")
    assert BeitImageProcessor.from_pretrained(tmp_path / "ours").image_mean[0] == mean


def test_processor_files_travel_between_folders(oracle_dir: Path, tmp_path: Path) -> None:
    torch.save(content(read_dump(oracle_dir, "vision"), "vision"), tmp_path / "c.pth")
    convert(tmp_path / "c.pth", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "hf", to="hf")
    ours, hf = (tmp_path / name / "preprocessor_config.json" for name in ("ours", "hf"))
    assert ours.read_bytes() == hf.read_bytes()


# --- the command ---


def test_command_converts_and_reports(oracle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, read_dump(oracle_dir, "audio"), "audio")
    assert cli.main(["convert", str(path), str(tmp_path / "ours"), "--check"]) == 0
    out = capsys.readouterr().out
    assert "fairseq data2vec audio; 180 tensors used" in out
    assert "checked: every tensor is bit for bit what was read" in out
    account = json.loads((tmp_path / "ours" / "conversion.json").read_text(encoding="utf-8"))
    assert account["report"]["used"]["mask_emb"] == "mask_embedding"
    assert account["stored"]["cfg"]["model"]["encoder_layers"] == 4
    assert cli.main(["convert", str(tmp_path / "ours"), str(tmp_path / "b.pt"), "--to", "fairseq", "--full"]) == 0
    assert "mask_embedding" in capsys.readouterr().out
    assert "model" in read_torch_file(tmp_path / "b.pt").content


def test_command_refuses_a_malicious_file_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return os.system, (f"touch {tmp_path / 'trace'}",)

    torch.save({"model": {"w": torch.ones(2)}, "args": Evil()}, tmp_path / "evil.pt")
    assert cli.main(["convert", str(tmp_path / "evil.pt"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "could run code" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()

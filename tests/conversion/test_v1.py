"""data2vec 1: files of the original layout give the original's numbers, come back bit for bit, open in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conversion.made import MODALITIES, Dump, ctc_content, equal, read_dump, save
from torch import Tensor

from data2vec.conversion.checkpoint import Checkpoint
from data2vec.conversion.convert import convert
from data2vec.conversion.loading import load_checkpoint
from data2vec.conversion.torch_files import read_torch_file
from data2vec.models.text.model import Data2VecTextModel
from data2vec.objectives.config import ObjectiveConfig, TargetConfig
from data2vec.objectives.v1 import Data2VecObjective

CASE = {"audio": "padded", "text": "padded", "vision": "end"}


def objective_config(dump: Dump, modality: str) -> ObjectiveConfig:
    c = dump["config"]
    if modality == "vision":
        return ObjectiveConfig(
            target=TargetConfig(layers=3, source="block", layer_norm="layer", final_norm="layer"),
            ema=ObjectiveConfig.vision().ema, loss_beta=2.0, loss_scale="mean",
        )  # fmt: skip
    base = ObjectiveConfig.audio() if modality == "audio" else ObjectiveConfig.text()
    norm = "instance" if modality == "audio" else "layer"
    target = TargetConfig(layers=c["average_top_k_layers"], layer_norm=norm, norm_over_padding=True)
    return ObjectiveConfig(target=target, ema=base.ema, head=base.head)


def batch(dump: Dump, modality: str) -> dict[str, Tensor]:
    case = dump["cases"][CASE[modality]]
    if modality == "vision":
        return {"pixel_values": case["pixel_values"], "mask": case["bool_masked_pos"].flatten(1).bool()}
    if modality == "audio":
        mask = (~case["padding_mask"].bool()).long()
        return {"input_values": case["source"], "attention_mask": mask, "mask": case["mask_indices"].bool()}
    masked = case["masked"].bool()
    clean = torch.where(masked, case["target_tokens"], case["src_tokens"])
    return {"input_ids": clean, "mask": masked}


@torch.no_grad()
def check_numbers(checkpoint: Checkpoint, dump: Dump, modality: str) -> None:
    """Features, targets and predictions as in the dump, to 1e-5 of the largest value."""
    model = checkpoint.model()
    inputs = batch(dump, modality)
    case = dump["cases"][CASE[modality]]
    features = model.contextualize(model.embed(inputs)).output  # type: ignore[operator]
    theirs = case["unmasked_features_x"] if modality != "vision" else dump["unmasked_final_normed_with_cls"]
    if modality == "text":  # the original leaves rubbish at padding
        valid = inputs["input_ids"] != dump["pad"]
        features, theirs = features[valid], theirs[valid]
    close(features, theirs, inputs.get("attention_mask"))
    task = Data2VecObjective(model, objective_config(dump, modality))  # type: ignore[arg-type]
    assert checkpoint.restore(task) == []
    task.eval()
    targets = task.targets(inputs, task.student.embed(inputs))[inputs["mask"]]  # type: ignore[operator]
    close(targets, case["targets"])
    output = task.student.contextualize(task.student.embed(inputs), inputs["mask"])  # type: ignore[operator]
    close(task.head(output.output[:, output.prefix :][inputs["mask"]]), case["student_pred"])


def close(ours: Tensor, theirs: Tensor, samples: Tensor | None = None) -> None:
    theirs = theirs.reshape(ours.shape) if ours.numel() == theirs.numel() else theirs
    error = (ours - theirs).abs()
    if samples is not None:  # frames past the end of a clip are arbitrary
        frames = [-(-int(n) * ours.shape[1] // samples.shape[1]) - 1 for n in samples.sum(dim=1)]
        error = torch.cat([row[:n] for row, n in zip(error, frames, strict=True)])
    assert float(error.max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("modality", MODALITIES)
def test_numbers_are_the_originals(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality)
    path = save(tmp_path, dump, modality)
    extra: dict[str, Any] = {"compat": "transformers"} if modality == "audio" else {}  # the original's padding
    check_numbers(load_checkpoint(path, **extra), dump, modality)
    convert(path, tmp_path / "ours", check=True, **extra)
    check_numbers(load_checkpoint(tmp_path / "ours"), dump, modality)


@pytest.mark.parametrize("modality", MODALITIES)
def test_back_to_the_original_bit_for_bit(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality)
    path = save(tmp_path, dump, modality)
    convert(path, tmp_path / "ours", check=True)
    convert(tmp_path / "ours", tmp_path / "back", to="fairseq", check=True)
    back = read_torch_file(next((tmp_path / "back").iterdir())).content
    model = dict(back["model"])
    nested = [name for name in model if name.endswith("_ema")]
    teacher = model[nested[0]] if nested else back["model_ema"]
    assert list(model) == dump.get("full_state_dict_keys", list(dump["student"]))
    assert list(teacher) == dump.get("ema_keys", list(dump["teacher"]))
    assert all(torch.equal(dump["teacher"][name], teacher[name]) for name in teacher)
    assert equal(
        {n: t for n, t in model.items() if n not in nested}, {n: dump["student"][n] for n in model if n not in nested}
    )
    assert set(back) <= set(read_torch_file(path).content)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_tensor_is_accounted_for(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality)
    report = load_checkpoint(save(tmp_path, dump, modality)).report
    accounted = set(report.used) | set(report.dropped)
    prefix = {"audio": "teacher.encoder.", "text": "teacher.encoder.sentence_encoder.", "vision": "teacher."}[modality]
    assert set(dump["student"]) | {prefix + name for name in dump["teacher"]} <= accounted
    recomputed = {name for name in report.dropped if not name.startswith("(")}
    assert {name.split(".")[-1] for name in recomputed} <= {"version", "relative_position_index"}
    text = report.table(full=True)
    assert all(name in text for name in accounted)
    if modality == "vision":
        assert report.ignored == {"argparse.Namespace": 1}


@pytest.mark.parametrize("modality", MODALITIES)
def test_transformers_loads_it_with_the_same_features(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    transformers = pytest.importorskip("transformers")
    dump = read_dump(oracle_dir, modality)
    convert(save(tmp_path, dump, modality), tmp_path / "hf", to="hf", check=True)
    assert not (tmp_path / "hf" / "pretraining.safetensors").exists()
    kind = getattr(transformers, f"Data2Vec{modality.capitalize()}Model")
    options = {"add_pooling_layer": False} if modality == "text" else {}
    theirs, info = kind.from_pretrained(tmp_path / "hf", output_loading_info=True, **options)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = {name: value for name, value in batch(dump, modality).items() if name != "mask"}
    if modality == "audio":
        inputs.pop("attention_mask")
    ours = load_checkpoint(tmp_path / "hf").model()
    pad = {"attention_mask": (inputs["input_ids"] != 1).long()} if modality == "text" else {}
    with torch.no_grad():
        close(ours(**inputs, **pad).last_hidden_state, theirs.eval()(**inputs, **pad).last_hidden_state)


def test_text_class_of_ours_reads_it(oracle_dir: Path, tmp_path: Path) -> None:
    dump = read_dump(oracle_dir, "text")
    convert(save(tmp_path, dump, "text"), tmp_path / "ours")
    model, report = Data2VecTextModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert report.unexpected == []
    assert [name for name in report.missing if not name.startswith("pooler")] == []
    words = dump["student"]["encoder.sentence_encoder.embed_tokens.weight"]
    assert torch.equal(model.frontend.words.weight, words)


def test_ctc_round_trip(oracle_dir: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = ctc_content(read_dump(oracle_dir, "audio"))
    torch.save(made, tmp_path / "ctc.pt")
    (tmp_path / "dict.ltr.txt").write_text("| 10\nE 5\nT 3\n", encoding="utf-8")
    report = convert(tmp_path / "ctc.pt", tmp_path / "ours", check=True)
    assert "row 0" in report.files["vocab.json"]
    assert report.settings["num_attention_heads"] == "4 (stored settings)"
    theirs, info = transformers.Data2VecAudioForCTC.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(theirs.lm_head.weight, made["model"]["w2v_encoder.proj.weight"])
    assert theirs.config.vocab_size == 7
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(tmp_path / "ours")
    assert tokenizer.get_vocab() == {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6}
    assert theirs.config.pad_token_id == tokenizer.pad_token_id == 0
    wave = torch.randn(2, 4000)
    with torch.no_grad():
        close(load_checkpoint(tmp_path / "ours").model()(wave).logits, theirs.eval()(wave).logits)
    convert(tmp_path / "ours", tmp_path / "back" / "ctc.pt", to="fairseq")
    back = read_torch_file(tmp_path / "back" / "ctc.pt").content["model"]
    assert set(back) == set(made["model"])
    assert all(torch.equal(back[name], made["model"][name]) for name in back)
    assert (tmp_path / "back" / "dict.ltr.txt").read_text(encoding="utf-8") == "| 1\nE 1\nT 1\n"

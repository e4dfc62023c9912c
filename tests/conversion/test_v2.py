"""data2vec 2: files of the original layout give the original's numbers and come back bit for bit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conversion.made import Dump, content, equal, read_dump
from torch import Tensor

from data2vec.conversion.checkpoint import Checkpoint
from data2vec.conversion.convert import convert, same_bits
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.loading import load_checkpoint
from data2vec.conversion.torch_files import read_torch_file
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, DecoderConfig, EmaConfig, TargetConfig
from data2vec.objectives.v2 import Data2Vec2Objective
from data2vec.pipelines.pipeline import pipeline

MODALITIES = ["audio", "text", "image"]
OURS = {"audio": "audio", "text": "text", "image": "vision"}
INPUT = {"audio": "input_values", "text": "input_ids", "image": "pixel_values"}
ORIGINAL = {"audio": {"zero_padded_frames": False}, "text": {}, "image": {}}  # the original's padding


def save(folder: Path, dump: Dump, modality: str) -> Path:
    path = folder / "checkpoint_last.pt"
    torch.save(content(dump, modality), path)
    return path


def objective_config(dump: Dump) -> Data2Vec2ObjectiveConfig:
    """The objective of the dump's base case."""
    c, decoder = dump["config"], dump["modality_config"]["decoder"]
    norms = [k for k in ("layer", "instance") if c[f"{k}_norm_target_layer"]]
    final = [k for k in ("layer", "instance") if c[f"{k}_norm_targets"]]
    image, only = dump["modality"] == "image", c["ema_encoder_only"]
    return Data2Vec2ObjectiveConfig(
        target=TargetConfig(
            layers=c["average_top_k_layers"], layer_norm=norms[0], final_norm=(final or ["none"])[0],
            norm_over_padding=True,
        ),
        ema=EmaConfig(scope="blocks" if only else "all" if image else "encoder"),
        decoder=DecoderConfig(
            channels=decoder["decoder_dim"], kernel=decoder["decoder_kernel"], layers=decoder["decoder_layers"],
            groups=decoder["decoder_groups"], dimensions=2 if image else 1, residual=decoder["decoder_residual"],
            projection_layers=decoder["projection_layers"], projection_ratio=decoder["projection_ratio"], dropout=0.0,
        ),
        count_padding=True,
    )  # fmt: skip


def batch(dump: Dump, modality: str) -> dict[str, Tensor]:
    """The inputs of the base case; its noise at the positions where the decoder reads it."""
    case = dump["cases"]["base"]
    rows, noise, restore = case["mask"].bool(), case["decoder_noise"], case["ids_restore"]
    joined = torch.cat([noise.new_zeros(len(noise), restore.shape[1] - noise.shape[1], noise.shape[2]), noise], dim=1)
    mask = rows.view(len(case["source"]), -1, rows.shape[1])
    spread = joined.gather(1, restore[..., None].expand_as(joined)).view(*mask.shape, -1)
    return {INPUT[modality]: case["source"], "mask": mask, "noise": spread}


@torch.no_grad()
def check_numbers(checkpoint: Checkpoint, dump: Dump, modality: str) -> None:
    """Features, targets and predictions as in the dump, to 1e-5 of the largest value."""
    model, inputs, case = checkpoint.model(), batch(dump, modality), dump["cases"]["base"]
    features = model.contextualize(model.embed(inputs)).output  # type: ignore[operator]
    theirs = case["unmasked_features_x"]
    close(features[:, -theirs.shape[1] :], theirs)
    task = Data2Vec2Objective(model, objective_config(dump))  # type: ignore[arg-type]
    assert checkpoint.restore(task) == []
    seen: list[Tensor] = []
    task.decoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    task(inputs)
    close(seen[0], case["student_pred"])
    targets = task.targets(inputs, task.student.embed(inputs))  # type: ignore[operator]
    masks = inputs["mask"]
    close(torch.cat([t.expand(len(m), -1, -1)[m] for t, m in zip(targets, masks, strict=True)]), case["targets"])


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("modality", MODALITIES)
def test_numbers_are_the_originals(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality, 2)
    path = save(tmp_path, dump, modality)
    check_numbers(load_checkpoint(path, **ORIGINAL[modality]), dump, modality)
    convert(path, tmp_path / "ours", check=True, **ORIGINAL[modality])
    check_numbers(load_checkpoint(tmp_path / "ours"), dump, modality)


@pytest.mark.parametrize("modality", MODALITIES)
def test_back_to_the_original_bit_for_bit(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality, 2)
    convert(save(tmp_path, dump, modality), tmp_path / "ours", check=True)
    convert(tmp_path / "ours", tmp_path / "back", to="fairseq", check=True)
    back = read_torch_file(tmp_path / "back" / "checkpoint.pt").content
    model = dict(back["model"])
    assert list(model) == dump["full_state_dict_keys"]
    teacher = model.pop("_ema")
    assert list(teacher) == dump["ema_keys"]
    assert equal(teacher, {name: dump["teacher"][name] for name in dump["ema_keys"]})
    assert equal(model, {name: dump["student"][name] for name in model})


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_tensor_is_used(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    dump = read_dump(oracle_dir, modality, 2)
    checkpoint = load_checkpoint(save(tmp_path, dump, modality))
    assert not [name for name in checkpoint.report.dropped if not name.startswith("(")]
    assert len(checkpoint.report.used) == len(dump["student"]) + len(dump["teacher"])
    assert checkpoint.kind == (OURS[modality], 2)
    config: Any = checkpoint.config
    assert config.prenet_depth == dump["modality_config"]["prenet_depth"]
    assert config.num_attention_heads == dump["config"]["num_heads"]
    with pytest.raises(CheckpointError, match="transformers has no data2vec 2"):
        convert(tmp_path / "checkpoint_last.pt", tmp_path / "hf", to="hf")


def variant(dump: Dump, modality: str, changes: dict[str, Any]) -> Dump:
    made = content(dump, modality)
    model = OrderedDict((name, value) for name, value in made["model"].items() if changes.get(name, 1) is not None)
    return {**made, "model": model | {name: value for name, value in changes.items() if value is not None}}


@pytest.mark.parametrize("learned", ["per head", "one"])
def test_old_alibi_scale_has_four_axes(oracle_dir: Path, tmp_path: Path, learned: str) -> None:
    dump = read_dump(oracle_dir, "audio", 2)
    name = "modality_encoders.AUDIO.alibi_scale"
    scale = dump["student"][name] if learned == "per head" else dump["student"][name][:, :, :1]
    torch.save(variant(dump, "audio", {name: scale.squeeze(0)}), tmp_path / "old.pt")
    found = load_checkpoint(tmp_path / "old.pt")
    assert torch.equal(found.base["encoder.alibi_scale"], scale[0])
    assert found.config.alibi_scale_per_head is (learned == "per head")


def test_alibi_scale_per_layer(oracle_dir: Path, tmp_path: Path) -> None:
    dump = read_dump(oracle_dir, "audio", 2)
    name = "modality_encoders.AUDIO.alibi_scale"
    scale = torch.randn(4, 1, 4, 1, 1)
    torch.save(variant(dump, "audio", {name: scale, "_ema": None}), tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "ours")
    assert load_checkpoint(tmp_path / "ours").config.alibi_scale_per_layer
    convert(tmp_path / "ours", tmp_path / "b.pt", to="fairseq")
    assert same_bits(read_torch_file(tmp_path / "b.pt").content["model"][name], scale)


def test_legacy_keys_are_dropped_with_a_reason(oracle_dir: Path, tmp_path: Path) -> None:
    dump = read_dump(oracle_dir, "image", 2)
    stem = "modality_encoders.IMAGE."
    positions = dump["student"][f"{stem}fixed_positional_encoder.positions"]
    legacy = {
        f"{stem}encoder_mask": torch.ones(1), "shared_decoder.blocks.0.0.weight": torch.ones(1),
        "recon_proj.weight": torch.ones(1), f"{stem}positional_encoder.pos_embed": positions,
        f"{stem}fixed_positional_encoder.positions": None,
    }  # fmt: skip
    torch.save(variant(dump, "image", legacy), tmp_path / "old.pt")
    found = load_checkpoint(tmp_path / "old.pt")
    assert torch.equal(found.base["encoder.fixed_positions"], positions)
    dropped = {name for name in found.report.dropped if not name.startswith("(")}
    assert dropped == {f"{stem}encoder_mask", "shared_decoder.blocks.0.0.weight", "recon_proj.weight"}
    assert not [why for why in found.report.dropped.values() if "unknown" in why]


def round_trip(made: Dump, folder: Path) -> Checkpoint:
    """A file of the original through ours and back, bit for bit; gives ours."""
    torch.save(made, folder / "variant.pt")
    report = convert(folder / "variant.pt", folder / "ours", check=True)
    assert not [name for name in report.dropped if not name.startswith("(")]
    convert(folder / "ours", folder / "back.pt", to="fairseq", check=True)
    back = read_torch_file(folder / "back.pt").content["model"]
    weights = {name: value for name, value in made["model"].items() if name != "_ema"}
    assert set(back) - {"_ema"} == set(weights)
    assert all(same_bits(back[name], weights[name]) for name in weights)
    return load_checkpoint(folder / "ours")


def test_patches_embedded_at_another_width(oracle_dir: Path, tmp_path: Path) -> None:
    """`local_encoder.0.proj` and a linear map `local_encoder.1`: together one linear map, as in the plain file."""
    dump = read_dump(oracle_dir, "image", 2)
    stem = "modality_encoders.IMAGE.local_encoder."
    kernel, wide = torch.randn(20, 3, 8, 8), torch.randn(48, 20)
    bias, shift = torch.randn(20), torch.randn(48)
    both = {"0.proj.weight": kernel, "0.proj.bias": bias, "1.weight": wide, "1.bias": shift}
    absent = {f"{stem}proj.weight": None, f"{stem}proj.bias": None, "_ema": None}
    found = round_trip(variant(dump, "image", {**absent, **{stem + n: t for n, t in both.items()}}), tmp_path)
    config: Any = found.config
    assert (config.patch_embed_dim, config.hidden_size) == (20, 48)
    one = {"weight": torch.einsum("oi,ichw->ochw", wide, kernel), "bias": wide @ bias + shift}
    torch.save(variant(dump, "image", {f"{stem}proj.{n}": t for n, t in one.items()}), tmp_path / "plain.pt")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = load_checkpoint(tmp_path / "plain.pt").model()(pixels).last_hidden_state
        close(found.model()(pixels).last_hidden_state, expected)


def test_norm_in_front_of_the_positional_convolutions(oracle_dir: Path, tmp_path: Path) -> None:
    """`conv_pos_pre_ln` moves the convolutions one level down and puts a norm of its own at 0."""
    dump = read_dump(oracle_dir, "audio", 2)
    stem = "modality_encoders.AUDIO.relative_positional_encoder."
    made = content(dump, "audio")
    model = {n.replace(stem, f"{stem}1."): t for n, t in made["model"].items() if n != "_ema"}
    gain, shift = torch.randn(48), torch.randn(48)
    made["model"] = OrderedDict({**model, f"{stem}0.weight": gain, f"{stem}0.bias": shift})
    found = round_trip(made, tmp_path)
    assert found.config.conv_pos_pre_norm
    ours: Any = found.model()
    with torch.no_grad():
        tokens = ours.embed({"input_values": dump["cases"]["base"]["source"]})
        x = tokens.features
        normed = torch.nn.functional.layer_norm(x, (48,), gain, shift, 1e-5)
        placed = x + ours.encoder.positions(normed)
        seen: list[Tensor] = []
        ours.encoder.norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        ours.contextualize(tokens)
        assert float((placed - x - ours.encoder.positions(x)).abs().max()) > 0.01
    close(seen[0], placed)


@pytest.mark.parametrize(
    ("modality", "absent", "option"),
    [
        ("audio", r"local_encoder.conv_layers.0.2.1.", "extractor_mode"),
        ("image", "fixed_positional_encoder.positions", "fixed_positions"),
    ],
)
def test_options_without_a_place_are_refused_by_name(
    oracle_dir: Path, tmp_path: Path, modality: str, absent: str, option: str
) -> None:
    made = content(read_dump(oracle_dir, modality, 2), modality)
    made["model"] = OrderedDict((n, t) for n, t in made["model"].items() if absent not in n)
    torch.save(made, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=option):
        load_checkpoint(tmp_path / "a.pt")


def fine_tuned(dump: Dump, modality: str) -> tuple[Dump, dict[str, Tensor]]:
    """As `wav2vec_ctc`, `mae_image_classification` and `data2vec2_text_classification` save them."""
    width = dump["config"]["embed_dim"]
    weights = {n: t for n, t in dump["student"].items() if ".decoder." not in n}
    if modality == "audio":
        model = {f"w2v_encoder.w2v_model.{n}": t for n, t in weights.items()}
        model |= {"w2v_encoder.proj.weight": torch.randn(7, width), "w2v_encoder.proj.bias": torch.randn(7)}
    else:
        model = {f"model.{n}": t for n, t in weights.items()}
        if modality == "image":
            model |= {"fc_norm.weight": torch.randn(width), "fc_norm.bias": torch.randn(width)}
            model |= {"head.weight": torch.randn(10, width), "head.bias": torch.randn(10)}
        else:
            shapes = {
                "dense.weight": (width, width),
                "dense.bias": (width,),
                "out_proj.weight": (3, width),
                "out_proj.bias": (3,),
            }
            stem = "classification_heads.sentence_classification_head."
            model |= {stem + name: torch.randn(shape) for name, shape in shapes.items()}
    args = {"model": dump["config"]}
    settings = {"w2v_args": args} if modality == "audio" else {"pretrained_model_args": args}
    return {"args": None, "cfg": {"model": settings}, "model": model}, model


@pytest.mark.parametrize("modality", MODALITIES)
def test_fine_tuned_round_trip(oracle_dir: Path, tmp_path: Path, modality: str) -> None:
    made, weights = fine_tuned(read_dump(oracle_dir, modality, 2), modality)
    torch.save(made, tmp_path / "tuned.pt")
    report = convert(tmp_path / "tuned.pt", tmp_path / "ours")
    assert not [name for name in report.dropped if not name.startswith("(")]
    found = load_checkpoint(tmp_path / "ours")
    assert found.head
    convert(tmp_path / "ours", tmp_path / "back.pt", to="fairseq")
    back = read_torch_file(tmp_path / "back.pt").content["model"]
    assert set(back) == set(weights)
    assert all(same_bits(back[name], weights[name]) for name in back)


def logits_of(features: Tensor, weights: dict[str, Tensor], modality: str) -> Tensor:
    """What the original's head makes of its encoder's output, by the formulas of `wav2vec_asr.py`,
    `mae_image_classification.py` and `data2vec_text_classification.py`."""
    linear, stem = torch.nn.functional.linear, "classification_heads.sentence_classification_head."
    if modality == "audio":
        return linear(features, weights["w2v_encoder.proj.weight"], weights["w2v_encoder.proj.bias"])
    if modality == "image":
        gain, shift = weights["fc_norm.weight"], weights["fc_norm.bias"]
        pooled = torch.nn.functional.layer_norm(features.mean(1), gain.shape, gain, shift, 1e-6)
        return linear(pooled, weights["head.weight"], weights["head.bias"])
    dense = linear(features[:, 0], weights[f"{stem}dense.weight"], weights[f"{stem}dense.bias"]).tanh()
    return linear(dense, weights[f"{stem}out_proj.weight"], weights[f"{stem}out_proj.bias"])


@pytest.mark.parametrize(
    ("modality", "name", "task"),
    [
        ("audio", "Data2Vec2AudioForCTC", "automatic-speech-recognition"),
        ("image", "Data2Vec2VisionForImageClassification", "image-classification"),
        ("text", "Data2Vec2TextForSequenceClassification", ""),
    ],
)
def test_fine_tuned_files_predict_as_the_original(
    oracle_dir: Path, tmp_path: Path, modality: str, name: str, task: str
) -> None:
    dump = read_dump(oracle_dir, modality, 2)
    made, weights = fine_tuned(dump, modality)
    torch.save(made, tmp_path / "tuned.pt")
    (tmp_path / "dict.ltr.txt").write_text("| 3\nE 2\nT 1\n", encoding="utf-8")  # 7 rows: four are special
    convert(tmp_path / "tuned.pt", tmp_path / "ours", check=True)
    model = load_checkpoint(tmp_path / "ours").model()
    assert type(model).__name__ == name
    case = dump["cases"]["base"]
    expected = logits_of(case["unmasked_features_x"], weights, modality)
    with torch.no_grad():
        close(model(**{INPUT[modality]: case["source"]}).logits, expected)
    if task:
        given = case["source"][0].numpy() if modality == "audio" else np.zeros((40, 30, 3), np.uint8)
        answer = pipeline(task, tmp_path / "ours")(given)
        assert set(answer["text"]) <= set(" ET") if modality == "audio" else len(answer) == 5


def test_settings_change_nothing_that_shapes_say(oracle_dir: Path, tmp_path: Path) -> None:
    """P15: stored settings of released files are wrong in places; shapes win."""
    dump = read_dump(oracle_dir, "audio", 2)
    wrong = {**dump["config"], "embed_dim": 99, "depth": 77, "layer_norm_first": None}
    torch.save(content({**dump, "config": wrong}, "audio"), tmp_path / "a.pt")
    config: Any = load_checkpoint(tmp_path / "a.pt").config
    assert (config.hidden_size, config.num_hidden_layers, config.prenet_depth) == (48, 4, 1)
    wrong["layer_norm_first"] = True
    torch.save(content({**dump, "config": wrong}, "audio"), tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="post-norm"):
        load_checkpoint(tmp_path / "b.pt")

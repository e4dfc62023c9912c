"""Old names, variants and relatives of the published layouts (one test each), and what must be refused."""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conversion.made import Dump, content, ctc_content, foreign, read_dump

from data2vec.conversion.architecture import infer
from data2vec.conversion.convert import convert, same_bits
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.loading import load_checkpoint
from data2vec.conversion.values import Settings, plain

Weights = dict[str, Any]


@pytest.fixture(scope="module")
def dumps(oracle_dir: Path) -> dict[str, Dump]:
    return {modality: read_dump(oracle_dir, modality) for modality in ("audio", "text", "vision")}


def written(folder: Path, value: Any, name: str | None = None) -> Path:
    """Save under a new name each time: what was loaded before stays mapped."""
    path = folder / (name or f"file{len(list(folder.iterdir()))}.pt")
    torch.save(value, path)
    return path


def student(dumps: dict[str, Dump], modality: str) -> Weights:
    return dict(dumps[modality]["student"])


def tensors_of(path: Path, **options: Any) -> Weights:
    return dict(load_checkpoint(path, **options).tensors)


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def renamed(weights: Weights, old: str, new: str) -> Weights:
    assert any(old in name for name in weights)
    return {name.replace(old, new): tensor for name, tensor in weights.items()}


# --- old names ---


def test_audio_released_final_proj(dumps: dict[str, Dump], tmp_path: Path) -> None:
    """Released files say `final_proj.0`, the code `final_proj`."""
    new = {"cfg": {"model": dumps["audio"]["config"]}, "model": student(dumps, "audio")}
    old = {**new, "model": renamed(new["model"], "final_proj.", "final_proj.0.")}
    found = load_checkpoint(written(tmp_path, old))
    assert same(found.tensors, tensors_of(written(tmp_path, new)))
    assert found.report.used["final_proj.0.weight"] == "predictor.weight"


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("encoder.sentence_encoder", "decoder.sentence_encoder"),
        ("layernorm_embedding", "emb_layer_norm"),
        ("encoder.regression_head", "encoder.lm_head"),
    ],
)
def test_text_old_names(dumps: dict[str, Dump], tmp_path: Path, new: str, old: str) -> None:
    weights = {"cfg": {"model": dumps["text"]["config"]}, "model": student(dumps, "text")}
    before = {**weights, "model": renamed(weights["model"], new, old)}
    assert same(tensors_of(written(tmp_path, before)), tensors_of(written(tmp_path, weights)))


def test_text_decoder_everywhere(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = student(dumps, "text")
    old = {name.replace("encoder.", "decoder.", 1): t for name, t in weights.items()}
    settings = {"num_attention_heads": 4}
    assert same(tensors_of(written(tmp_path, old), **settings), tensors_of(written(tmp_path, weights), **settings))


def test_text_single_layer_head(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = {n: t for n, t in student(dumps, "text").items() if ".regression_head." not in n}
    weights |= {"encoder.regression_head.0.weight": torch.eye(48), "encoder.regression_head.0.bias": torch.ones(48)}
    found = load_checkpoint(written(tmp_path, weights), num_attention_heads=4)
    assert found.predictor.keys() == {"weight", "bias"}


def test_roberta_language_head(dumps: dict[str, Dump], tmp_path: Path) -> None:
    """A RoBERTa-style head beside the encoder goes to the masked-language class, not to the regression head."""
    weights = {n: t for n, t in student(dumps, "text").items() if ".regression_head." not in n}
    for name, shape in {
        "dense.weight": (48, 48),
        "dense.bias": (48,),
        "layer_norm.weight": (48,),
        "layer_norm.bias": (48,),
        "bias": (100,),
    }.items():
        weights[f"encoder.lm_head.{name}"] = torch.ones(shape)
    found = load_checkpoint(written(tmp_path, weights), num_attention_heads=4)
    assert found.model_class == "Data2VecTextForMaskedLM"
    assert "lm_head.dense.weight" in found.published()
    assert found.model()(torch.tensor([[0, 5, 2]])).logits.shape == (1, 3, 100)
    weights["encoder.lm_head.weight"] = weights["encoder.sentence_encoder.embed_tokens.weight"]
    convert(written(tmp_path, weights), tmp_path / "ours", check=True, num_attention_heads=4)
    convert(tmp_path / "ours", tmp_path / "back.pt", to="fairseq")
    back = load_checkpoint(tmp_path / "back.pt", num_attention_heads=4)
    assert back.report.dropped["encoder.lm_head.weight"].startswith("tied")
    assert same(back.head, found.head)


# --- fine-tuned ---


def test_text_classification_heads(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = student(dumps, "text")
    for head, classes in (("mnli", 3), ("rte", 2)):
        weights |= {
            f"classification_heads.{head}.dense.weight": torch.eye(48),
            f"classification_heads.{head}.dense.bias": torch.ones(48),
        }
        weights |= {f"classification_heads.{head}.out_proj.weight": torch.ones(classes, 48)}
        weights |= {f"classification_heads.{head}.out_proj.bias": torch.ones(classes)}
    path = written(tmp_path, weights)
    with pytest.raises(CheckpointError, match=r"mnli, rte.*--head"):
        load_checkpoint(path, num_attention_heads=4)
    with pytest.raises(CheckpointError, match="no classification head 'x'"):
        load_checkpoint(path, num_attention_heads=4, head="x")
    found = load_checkpoint(path, num_attention_heads=4, head="mnli")
    assert found.config.num_labels == 3
    assert found.model_class == "Data2VecTextForSequenceClassification"
    assert {n for n in found.published() if n.startswith("classifier")} == {
        f"classifier.{part}.{leaf}" for part in ("dense", "out_proj") for leaf in ("weight", "bias")
    }
    assert found.model()(torch.tensor([[0, 5, 2]])).logits.shape == (1, 3)
    assert found.report.dropped["classification_heads.rte.dense.weight"].startswith("another head")


def fine_tuned_vision(dumps: dict[str, Dump], *, shared: bool) -> Weights:
    weights = {n: t for n, t in student(dumps, "vision").items() if not n.startswith(("norm.", "lm_head."))}
    if not shared:
        table = weights.pop("rel_pos_bias.relative_position_bias_table")
        index = weights.pop("rel_pos_bias.relative_position_index")
        for i in range(4):
            weights[f"blocks.{i}.attn.relative_position_bias_table"] = table + i
            weights[f"blocks.{i}.attn.relative_position_index"] = index
    weights |= {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.zeros(48)}
    weights |= {"head.weight": torch.randn(10, 48), "head.bias": torch.randn(10)}
    return weights


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-block"])
def test_vision_fine_tuned_deepspeed_file(dumps: dict[str, Dump], tmp_path: Path, shared: bool) -> None:
    """DeepSpeed keeps weights under `module`; the released files have a bias table a block, the code one for all."""
    transformers = pytest.importorskip("transformers")
    weights = fine_tuned_vision(dumps, shared=shared)
    path = written(tmp_path, {"module": OrderedDict(weights), "optimizer": None, "global_steps": 5})
    report = convert(path, tmp_path / "hf", to="hf", check=True)
    assert not [name for name, why in report.dropped.items() if "unknown" in why]
    model, info = transformers.Data2VecVisionForImageClassification.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.num_labels == 10
    assert model.config.use_shared_relative_position_bias is shared
    assert model.config.use_relative_position_bias is not shared
    assert torch.equal(model.classifier.weight, weights["head.weight"])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = load_checkpoint(tmp_path / "hf").model()(pixels).logits
        torch.testing.assert_close(ours, model.eval()(pixels).logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(model.data2vec_vision.pooler.layernorm.weight, weights["fc_norm.weight"])
    convert(tmp_path / "hf", tmp_path / "back.pth", to="fairseq")
    back = torch.load(tmp_path / "back.pth", weights_only=False)["model"]
    assert set(back) == set(weights)
    assert all(same_bits(back[name], weights[name]) for name in back)


def test_vision_beit_token_head_is_left_out(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = student(dumps, "vision")
    weights |= {"lm_head.weight": torch.ones(8192, 48), "lm_head.bias": torch.ones(8192)}
    found = load_checkpoint(written(tmp_path, weights))
    assert found.predictor == {}
    assert "BEiT" in found.report.dropped["lm_head.bias"]


def test_vision_corrupted_teacher_index_is_rebuilt(dumps: dict[str, Dump], tmp_path: Path) -> None:
    """P3: averaging truncates the integer index; ours is computed, and the original gets a sound one back."""
    made = content(dumps["vision"], "vision")
    name = "rel_pos_bias.relative_position_index"
    made["model_ema"] = {**made["model_ema"], name: made["model_ema"][name] - 1}
    convert(written(tmp_path, made, "a.pth"), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "b.pth", to="fairseq")
    back = torch.load(tmp_path / "b.pth", weights_only=False)
    assert torch.equal(back["model_ema"][name], dumps["vision"]["student"][name])


def test_vision_absolute_positions_and_no_scale(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = {n: t for n, t in student(dumps, "vision").items() if "rel_pos_bias" not in n and "gamma" not in n}
    weights["pos_embed"] = torch.ones(1, 65, 48)
    config = load_checkpoint(written(tmp_path, weights), num_attention_heads=4).config
    assert (config.use_absolute_position_embeddings, config.layer_scale_init_value, config.image_size) == (
        True,
        0.0,
        64,
    )


# --- wrappers and settings ---


def test_names_from_the_file_cannot_paint_the_terminal(dumps: dict[str, Dump], tmp_path: Path) -> None:
    made = content(dumps["audio"], "audio")
    made["model"]["\x1b[2Jerased \ud800\n"] = torch.ones(1)
    made["cfg"]["note"] = "\ud800"
    report = convert(written(tmp_path, made), tmp_path / "ours")
    text = report.table(full=True)
    assert "\x1b" not in text
    assert "unknown name" in text
    text.encode("utf-8")


def test_parallel_prefix_and_bare_state(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = student(dumps, "audio")
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    settings = {"num_attention_heads": 4}
    assert same(
        tensors_of(written(tmp_path, {"model": wrapped}), **settings),
        tensors_of(written(tmp_path, weights), **settings),
    )


def test_half_precision_is_kept(dumps: dict[str, Dump], tmp_path: Path) -> None:
    made = content(dumps["audio"], "audio")
    made["model"] = OrderedDict((n, t.half() if isinstance(t, torch.Tensor) else t) for n, t in made["model"].items())
    convert(written(tmp_path, made), tmp_path / "ours", check=True)
    found = load_checkpoint(tmp_path / "ours")
    assert found.base["encoder.norm.weight"].dtype == torch.float16
    assert found.teacher["encoder.norm.weight"].dtype == torch.float32
    assert found.config.dtype == "float16"


def test_teacher_weights_can_be_taken(dumps: dict[str, Dump], tmp_path: Path) -> None:
    path = written(tmp_path, content(dumps["audio"], "audio"))
    found = load_checkpoint(path, weights="teacher")
    assert torch.equal(found.base["encoder.norm.weight"], dumps["audio"]["teacher"]["layer_norm.weight"])
    assert torch.equal(found.base["frontend.norm.weight"], dumps["audio"]["student"]["layer_norm.weight"])
    assert found.teacher == {}
    with pytest.raises(CheckpointError, match="no EMA teacher"):
        load_checkpoint(written(tmp_path, student(dumps, "audio")), weights="teacher", num_attention_heads=4)


def test_omegaconf_settings_are_read_without_omegaconf(
    dumps: dict[str, Dump], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DictConfig's pickled form: containers with `_content`, values with `_val`, and a cycle through `_parent`."""

    def value(x: Any) -> Any:
        return foreign(monkeypatch, "omegaconf.nodes", "AnyNode", {"_val": x, "_metadata": None})

    model = foreign(
        monkeypatch, "omegaconf.dictconfig", "DictConfig", {"_content": {"encoder_attention_heads": value(4)}}
    )
    root = foreign(monkeypatch, "omegaconf.dictconfig", "DictConfig", {"_content": {"model": model}})
    model._parent = root
    path = written(tmp_path, {"cfg": root, "model": student(dumps, "audio")})
    monkeypatch.undo()
    found = load_checkpoint(path)
    assert found.config.num_attention_heads == 4
    assert found.settings == {"cfg": {"model": {"encoder_attention_heads": 4}}}
    assert found.report.ignored == {"omegaconf.dictconfig.DictConfig": 2, "omegaconf.nodes.AnyNode": 1}


def test_fine_tuned_settings_in_a_namespace(dumps: dict[str, Dump], tmp_path: Path) -> None:
    found = load_checkpoint(written(tmp_path, ctc_content(dumps["audio"])))
    assert found.config.num_attention_heads == 4
    assert found.config.vocab_size == 7


def test_heads_must_be_given_where_nothing_tells(dumps: dict[str, Dump], tmp_path: Path) -> None:
    path = written(tmp_path, student(dumps, "audio"))
    with pytest.raises(CheckpointError, match="num_attention_heads"):
        load_checkpoint(path)
    assert load_checkpoint(path, num_attention_heads=6).config.num_attention_heads == 6


@pytest.mark.parametrize(
    "evil", ["__import__('os').system('touch x')", "[(512, 10, 5)] * 10**9", "[" * 400, "[(1, 2)]"]
)
def test_stored_code_is_read_not_run(dumps: dict[str, Dump], tmp_path: Path, evil: str) -> None:
    made = content(dumps["audio"], "audio")
    made["cfg"]["model"]["conv_feature_layers"] = evil
    found = load_checkpoint(written(tmp_path, made))
    assert found.config.conv_stride == (5, 2, 2, 2, 2, 2, 2)
    assert "assumed" in found.report.settings["conv_stride"]


def test_settings_bombs_are_refused() -> None:
    shared: Any = [1]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(CheckpointError, match="too deeply or too large"):
        plain(shared)
    assert Settings({"a": {"b": True}}, ("a", "")).whole("b") is None


# --- transformers ---


def test_transformers_4_bin_and_shards(dumps: dict[str, Dump], tmp_path: Path) -> None:
    convert(written(tmp_path, content(dumps["text"], "text")), tmp_path / "hf", to="hf")
    found = load_checkpoint(tmp_path / "hf")
    published = found.published() | {"embeddings.position_ids": torch.arange(66).expand((1, -1))}
    old = tmp_path / "bin"
    old.mkdir()
    (old / "config.json").write_bytes((tmp_path / "hf" / "config.json").read_bytes())
    torch.save(published, old / "pytorch_model.bin")
    again = load_checkpoint(old)
    assert same(again.tensors, found.tensors)
    assert "embeddings.position_ids" in again.report.dropped
    names = sorted(published)
    shards = {f"s{i}.bin": names[i::3] for i in range(3)}
    for shard, some in shards.items():
        torch.save({name: published[name] for name in some}, old / shard)
    (old / "pytorch_model.bin").unlink()
    index = {"weight_map": {name: shard for shard, some in shards.items() for name in some}}
    (old / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert same(load_checkpoint(old).tensors, found.tensors)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("[]", "JSON object"),
        ("{", "not JSON"),
        ('{"weight_map": {"a": "../x.bin"}}', "plain file name"),
        ('{"weight_map": {"a": "x.bin"}}', "no such file"),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', "plain file name"),
        ('{"weight_map": 3}', "weight_map"),
    ],
)
def test_bad_shard_indexes_are_refused(tmp_path: Path, index: str, words: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


# --- refused ---


def test_relatives_are_refused_by_name(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = {n: t for n, t in student(dumps, "audio").items() if "pos_conv" not in n}
    weights["encoder.pos_conv.0.weight_g"] = torch.ones(1, 1, 128)
    with pytest.raises(CheckpointError, match=r"wav2vec 2.0 or HuBERT"):
        load_checkpoint(written(tmp_path, weights))


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": torch.ones(2)}, torch.ones(3), {}, {"model": {}}, argparse.Namespace(a=1)]
)
def test_other_content_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_checkpoint(written(tmp_path, value))


@pytest.mark.parametrize("modality", ["audio", "text", "vision"])
def test_missing_and_misshapen_tensors_are_refused(dumps: dict[str, Dump], tmp_path: Path, modality: str) -> None:
    weights = student(dumps, modality)
    refused = 0
    for name in list(weights)[::7]:
        for broken in (None, torch.ones(()), torch.ones(5), torch.ones(3, 1, 2)):
            changed = {n: t for n, t in weights.items() if n != name} | ({} if broken is None else {name: broken})
            try:
                load_checkpoint(written(tmp_path, changed), num_attention_heads=4)
            except CheckpointError:
                refused += 1
            else:  # heads of pre-training and recomputed buffers may be absent or odd
                assert (
                    name.startswith(("final_proj", "encoder.regression_head", "lm_head", "mask_", "norm"))
                    or "version" in name
                )
    assert refused > 20


def test_two_spellings_of_one_tensor_are_refused(dumps: dict[str, Dump], tmp_path: Path) -> None:
    weights = student(dumps, "audio")
    weights["final_proj.0.weight"] = weights["final_proj.weight"]
    with pytest.raises(CheckpointError, match="two tensors claim"):
        load_checkpoint(written(tmp_path, weights), num_attention_heads=4)


def test_gaps_between_layers_are_refused(dumps: dict[str, Dump]) -> None:
    tensors = {"encoder.blocks.0.mlp.fc1.weight": torch.ones(2, 2), "encoder.blocks.2.mlp.fc1.weight": torch.ones(2, 2)}
    tensors |= {"frontend.words.weight": torch.ones(4, 64), "encoder.positions.weight": torch.ones(4, 64)}
    with pytest.raises(CheckpointError, match="without gap"):
        infer(("text", 1), tensors, Settings(), {})

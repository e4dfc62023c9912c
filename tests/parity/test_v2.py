"""data2vec 2 against the original implementation: targets, predictions, losses, gradients, EMA, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, DecoderConfig, EmaConfig, TargetConfig
from data2vec.objectives.losses import regression_loss
from data2vec.objectives.v2 import Data2Vec2Objective
from data2vec.training.optim import Adam

Dump = dict[str, Any]
Weights = Mapping[str, Tensor]
NAMES = ("v2_audio", "v2_image", "v2_text")


# ---- the originals' names -> ours (a plain transcription of algorithms.md section 3)


STEMS = (
    ("alibi_scale", "student.encoder.alibi_scale"),
    ("extra_tokens", "student.encoder.extra_tokens"),
    ("fixed_positional_encoder.positions", "student.encoder.fixed_positions"),
    ("local_encoder.conv_layers.", "student.frontend.convs."),
    ("local_encoder.proj.", "student.frontend.projection."),
    ("local_encoder.embed_tokens.", "student.frontend.words."),
    ("local_encoder.embed_positions.", "student.frontend.positions."),
    ("local_encoder.layernorm_embedding.", "student.frontend.norm."),
    ("project_features.1.", "student.frontend.norm."),
    ("project_features.2.", "student.frontend.projection."),
    ("relative_positional_encoder.", "student.encoder.positions."),
    ("context_encoder.norm.", "student.encoder.norm."),
    ("context_encoder.blocks.", "student.encoder.blocks."),
    ("shared.blocks.", "student.encoder.blocks."),
    ("decoder.blocks.", "decoder.layers."),
    ("decoder.proj.", "decoder.projection."),
)


def map_names(weights: Weights, prenet: int) -> dict[str, Tensor]:
    """A student's weights or gradients under the names of a task; fused q, k, v are split."""
    mapped: dict[str, Tensor] = {}
    for full, tensor in weights.items():
        name = ".".join(full.split(".")[2:]) if full.startswith("modality_encoders.") else "shared." + full
        if name.endswith("alibi_scale"):
            tensor = tensor.reshape(tensor.shape[0], *tensor.shape[-3:])
        old, new = next(stem for stem in STEMS if name.startswith(stem[0]))
        rest = name[len(old) :]
        if old == "shared.blocks.":
            layer, rest = rest.split(".", 1)
            rest = f"{int(layer) + prenet}.{rest}"
        elif old == "relative_positional_encoder.":
            layer, rest = rest.split(".0.", 1)
            rest = f"{int(layer) - 1}.conv.{rest}"
        elif old == "local_encoder.conv_layers.":
            rest = rest.replace(".0.weight", ".conv.weight").replace(".2.1.", ".norm.")
        elif old == "decoder.blocks.":
            rest = rest.replace(".0.", ".conv.", 1)
        elif old == "decoder.proj." and rest in ("weight", "bias"):
            rest = "0." + rest
        if ".attn.qkv." in rest:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                mapped[new + rest.replace(".attn.qkv.", f".attention.{part}_proj.")] = chunk
        else:
            mapped[new + rest.replace(".attn.proj.", ".attention.out_proj.")] = tensor
    return mapped


def map_teacher(dump: Dump, weights: Weights) -> dict[str, Tensor]:
    """A teacher's weights as if they were a student's; what it does not have is the student's own."""
    if dump["config"]["ema_encoder_only"]:
        weights = {f"blocks.{name}": tensor for name, tensor in weights.items()}
    return map_names(weights, dump["modality_config"]["prenet_depth"])


# ---- tasks


def audio_model(dump: Dump, common: Dump) -> Data2Vec2AudioModel:
    m = dump["modality_config"]
    convs = eval(m["feature_encoder_spec"], {"__builtins__": {}})
    depth = m["conv_pos_depth"]
    return Data2Vec2AudioModel(
        Data2Vec2AudioConfig(
            conv_dim=[x[0] for x in convs], conv_kernel=[x[1] for x in convs], conv_stride=[x[2] for x in convs],
            num_conv_pos_embeddings=depth, conv_pos_kernel_size=max(3, m["conv_pos_width"] // depth),
            num_conv_pos_embedding_groups=m["conv_pos_groups"], hidden_dropout=0.0, attention_dropout=0.0,
            zero_padded_frames=False, mask_noise_std=m["mask_noise_std"], **common,
        )
    )  # fmt: skip


def text_model(dump: Dump, common: Dump) -> Data2Vec2TextModel:
    words = dump["student"]["modality_encoders.TEXT.local_encoder.embed_tokens.weight"]
    positions = dump["student"]["modality_encoders.TEXT.local_encoder.embed_positions.weight"]
    return Data2Vec2TextModel(
        Data2Vec2TextConfig(
            vocab_size=len(words), max_position_embeddings=len(positions),
            pad_token_id=len(positions) - dump["modality_config"]["max_source_positions"] - 1,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **common,
        )
    )  # fmt: skip


def image_model(dump: Dump, common: Dump) -> Data2Vec2VisionModel:
    m = dump["modality_config"]
    return Data2Vec2VisionModel(
        Data2Vec2VisionConfig(
            image_size=m["input_size"], patch_size=m["patch_size"], num_channels=m["in_chans"],
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0, **common,
        )
    )  # fmt: skip


MODELS = {"audio": audio_model, "text": text_model, "image": image_model}


def make_task(dump: Dump, overrides: Dump) -> Data2Vec2Objective:
    c, m = dump["config"], dump["modality_config"]
    common = {
        "hidden_size": c["embed_dim"], "num_attention_heads": c["num_heads"],
        "num_hidden_layers": c["depth"] + m["prenet_depth"], "intermediate_size": int(c["embed_dim"] * c["mlp_ratio"]),
        "layer_norm_eps": c["norm_eps"], "layerdrop": 0.0, "prenet_depth": m["prenet_depth"], "prenet_dropout": 0.0,
        "num_extra_tokens": m["num_extra_tokens"], "use_alibi": m["use_alibi_encoder"],
        "learn_alibi_scale": m["learned_alibi_scale"], "alibi_scale_per_head": m["learned_alibi_scale_per_head"],
        "alibi_scale_per_layer": m["learned_alibi_scale_per_layer"],
    }  # fmt: skip
    decoder = m["decoder"]
    scope = "blocks" if c["ema_encoder_only"] else "all" if m["ema_local_encoder"] else "encoder"
    config = Data2Vec2ObjectiveConfig(
        target=target_config(c, overrides),
        ema=EmaConfig(
            start=c["ema_decay"], end=c["ema_end_decay"], anneal_updates=c["ema_anneal_end_step"], scope=scope
        ),
        decoder=DecoderConfig(
            channels=decoder["decoder_dim"], kernel=decoder["decoder_kernel"], layers=decoder["decoder_layers"],
            groups=decoder["decoder_groups"], dimensions=2 if dump["modality"] == "image" else 1,
            residual=decoder["decoder_residual"], projection_layers=decoder["projection_layers"],
            projection_ratio=decoder["projection_ratio"], dropout=0.0,
        ),
        loss_beta=overrides.get("loss_beta", c["loss_beta"]),
        loss_scale="rsqrt" if c["loss_scale"] is None else float(c["loss_scale"]),
        cls_weight=float(c["cls_loss"]), cls_rows="sum", count_padding=True,
    )  # fmt: skip
    task = Data2Vec2Objective(MODELS[dump["modality"]](dump, common), config)
    return load(task, dump).train()


def target_config(config: Dump, overrides: Dump) -> TargetConfig:
    flags = {**config, **overrides}
    kinds = [k for k in ("layer", "instance", "batch") if flags.get(f"{k}_norm_target_layer")]
    final = [k for k in ("layer", "instance") if flags.get(f"{k}_norm_targets")]
    return TargetConfig(
        layers=config["average_top_k_layers"], source="block" if config["end_of_block_targets"] else "ffn",
        layer_norm=kinds[0] if kinds else "none", final_norm=final[0] if final else "none", norm_over_padding=True,
    )  # fmt: skip


def load(task: Data2Vec2Objective, dump: Dump) -> Data2Vec2Objective:
    """Put the dump's student and teacher into a task; every tensor of either must find its place."""
    given = map_names(dump["student"], dump["modality_config"]["prenet_depth"])
    teacher = {**given, **map_teacher(dump, dump["teacher"])}
    state = task.state_dict()
    if not dump["modality_config"]["learned_alibi_scale"]:  # then the original has none, and ours is 1
        given |= {name: tensor for name, tensor in state.items() if name.endswith("alibi_scale")} | given
    for name, tensor in teacher.items():
        full = name.replace("student.", "teacher.encoder.", 1)
        if name.startswith("student.") and full in state:
            given[full] = tensor
    task.load_state_dict(given, strict=True)
    return task


def make_batch(dump: Dump, case: Dump) -> dict[str, Tensor]:
    source, rows = case["source"], case["mask"].bool()
    key = {"audio": "input_values", "text": "input_ids", "image": "pixel_values"}[dump["modality"]]
    batch = {key: source, "mask": rows.view(len(source), -1, rows.shape[1])}
    if case["padding_mask"] is not None:
        batch["attention_mask"] = (~case["padding_mask"].bool()).long()
    batch["noise"] = spread(case["decoder_noise"], case["ids_restore"]).view(*batch["mask"].shape, -1)
    return batch


def spread(noise: Tensor, ids_restore: Tensor) -> Tensor:
    """The noise of the masked tokens in their order (R, N, D) -> at their positions (R, T, D)."""
    visible = noise.new_zeros(len(noise), ids_restore.shape[1] - noise.shape[1], noise.shape[2])
    joined = torch.cat([visible, noise], dim=1)
    return joined.gather(1, ids_restore[..., None].expand_as(joined))


# ---- checks


def close(ours: Tensor, theirs: Tensor, relative: float) -> None:
    """Largest error at most `relative` of the largest value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    error = float((ours.detach() - theirs).abs().max())
    assert error <= relative * max(float(theirs.abs().max()), 1e-8), f"{error:.3e} of {float(theirs.abs().max()):.3e}"


def check_gradients(task: nn.Module, theirs: Weights) -> None:
    ours = {n: p.grad for n, p in task.named_parameters() if p.grad is not None}
    norm = max(float(g.abs().max()) for g in theirs.values())
    compared = 0
    for name, gradient in theirs.items():
        if ".k_proj.bias" in name:  # zero in theory
            continue
        assert name in ours, name
        error = float((ours[name] - gradient).abs().max())
        # relative to the tensor, with a floor for those that vanish
        assert error <= 1e-4 * max(float(gradient.abs().max()), 1e-4 * norm), (name, error, float(gradient.abs().max()))
        compared += 1
    assert compared > 20


@pytest.fixture(scope="module")
def dumps(oracle_dir: Path) -> Callable[[str], Dump]:
    def read(name: str) -> Dump:
        file = oracle_dir / f"{name}.pt"
        if not file.is_file():
            pytest.skip(f"{file.name} is not in the oracle folder")
        dump: Dump = torch.load(file, weights_only=True)
        return dump

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_case(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    prenet = dump["modality_config"]["prenet_depth"]
    assert dump["cases"]
    for case_name, case in dump["cases"].items():
        task = make_task(dump, case["overrides"])
        batch = make_batch(dump, case)
        seen: dict[str, Tensor] = {}
        task.decoder.register_forward_hook(lambda _m, _i, out, seen=seen: seen.__setitem__("pred", out))
        out = task(batch)
        out.loss_sum.backward()
        tokens = task.student.embed(batch)
        full = task.targets(batch, tokens)
        masks = batch["mask"].shape[1]
        target = full.repeat_interleave(masks, 0)[batch["mask"].flatten(0, 1)]
        losses = regression_loss(seen["pred"], target, beta=task.config.loss_beta, scale=task.scale)
        assert float(out.count) == len(target) == case["sample_size"], case_name
        close(full, case["targets_full_BTC"], 1e-5)
        close(target, case["targets"], 1e-5)
        close(seen["pred"], case["student_pred"], 1e-5)
        close(losses, case["loss_per_token"], 1e-5)
        assert out.loss_sum.item() == pytest.approx(float(case["loss_total_sum"]), rel=1e-6), case_name
        assert float((out.loss_sum / out.count).detach()) == pytest.approx(float(case["loss_mean"]), rel=1e-6)
        log = task.summarize(out.sums)
        assert log["target_var"] == pytest.approx(float(case["target_var"]), rel=1e-4)
        assert log["pred_var"] == pytest.approx(float(case["pred_var"]), rel=1e-4)
        assert log["masked"] == pytest.approx(case["masked_pct"])
        check_gradients(task, map_names(case["grads_of_sum"], prenet))


@pytest.mark.parametrize("name", NAMES)
def test_unmasked_features(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    for case in dump["cases"].values():
        task, batch = make_task(dump, {}).eval(), make_batch(dump, case)
        with torch.no_grad():
            tokens = task.student.embed(batch)
            seen = task.student.contextualize(tokens)
        close(seen.output[:, seen.prefix :], case["unmasked_features_x"], 1e-5)
        assert len(seen.ffns) == len(case["unmasked_layer_results"])
        for ours, theirs in zip(seen.ffns, case["unmasked_layer_results"], strict=True):
            close(ours, theirs, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_ema_step(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    task = make_task({**dump, "teacher": dump["teacher_before_ema"]}, {})
    assert task.after_step(1)["ema_decay"] == pytest.approx(dump["ema_decay_used"])
    mine = dict(task.teacher.encoder.named_parameters())
    compared = 0
    for name_, tensor in map_teacher(dump, dump["teacher"]).items():
        if (short := name_.removeprefix("student.")) in mine:
            close(mine[short], tensor, 1e-6)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", NAMES)
def test_five_steps(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    plan = dump["trajectory"]
    case = dump["cases"][plan.get("case", "base")]
    task, batch = make_task(dump, case["overrides"]), make_batch(dump, case)
    optimizer = Adam(
        [p for p in task.parameters() if p.requires_grad],
        lr=plan["lr"], betas=plan["betas"], eps=plan["eps"], weight_decay=plan["weight_decay"],
    )  # fmt: skip
    for index, step in enumerate(plan["steps"]):
        if index > 0:
            assert task.after_step(step["update"])["ema_decay"] == pytest.approx(step["ema_decay"])
        optimizer.zero_grad(set_to_none=True)
        out = task(batch)
        (out.loss_sum / out.count).backward()
        assert float((out.loss_sum / out.count).detach()) == pytest.approx(step["loss"], rel=1e-4), index
        norm = nn.utils.clip_grad_norm_(task.parameters(), plan["clip_norm"] or float("inf"))
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-3), index
        optimizer.step()
    check_end(task, dump)


def check_end(task: Data2Vec2Objective, dump: Dump) -> None:
    """Weights after the last step, to 1e-4 of the largest of each."""
    state, plan = task.state_dict(), dump["trajectory"]
    for name, tensor in map_names(plan["student_end"], dump["modality_config"]["prenet_depth"]).items():
        if ".k_proj.bias" not in name:
            close(state[name], tensor, 1e-4)
    for name, tensor in map_teacher(dump, plan["teacher_end"]).items():
        if ".k_proj.bias" not in name and (full := name.replace("student.", "teacher.encoder.", 1)) in state:
            close(state[full], tensor, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_masking_of_fine_tuning(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    cases = dump["finetune_masking"]
    if not cases:
        pytest.skip(f"{name} holds no such case")
    for kind, case in cases.items():
        model, mask = make_task(dump, {}).eval().student, case["mask"].bool()
        noise = torch.zeros(*mask.shape, model.config.hidden_size)
        if case["noise"] is not None:
            noise[mask] = case["noise"]
        with torch.no_grad():
            out = model(case["source"], mask_time_indices=mask, mask_noise=noise)
        close(out.last_hidden_state, case["x"], 1e-5)
        if kind == "zero":
            model.config = model.config.replace(mask_noise_std=0.0)
            with torch.no_grad():
                close(model(case["source"], mask_time_indices=mask).last_hidden_state, case["x"], 1e-5)

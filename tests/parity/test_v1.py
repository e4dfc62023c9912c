"""data2vec 1 against the original implementations: targets, predictions, losses, gradients, EMA, trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.objectives.config import EmaConfig, ObjectiveConfig, TargetConfig
from data2vec.objectives.v1 import Data2VecObjective
from data2vec.training.optim import Adam

Dump = dict[str, Any]
Weights = Mapping[str, Tensor]


# ---- the originals' names -> ours (a plain transcription of oracle/README.md, independent of data2vec.conversion)


def audio_names(original: str) -> str:
    for old, new in (
        ("mask_emb", "student.mask_embedding"),
        ("final_proj.", "head."),
        ("post_extract_proj.", "student.frontend.projection."),
        ("layer_norm.", "student.frontend.norm."),
        ("encoder.layer_norm.", "student.encoder.norm."),
        ("encoder.layers.", "student.encoder.blocks."),
    ):
        if original.startswith(old):
            return block_names(new + original[len(old) :])
    raise KeyError(original)


def block_names(name: str) -> str:
    for old, new in (
        (".self_attn_layer_norm.", ".norm1."),
        (".self_attn.", ".attention."),
        (".final_layer_norm.", ".norm2."),
        (".fc1.", ".mlp.fc1."),
        (".fc2.", ".mlp.fc2."),
    ):
        name = name.replace(old, new)
    return name


def map_audio(weights: Weights) -> dict[str, Tensor]:
    mapped = {}
    for name, tensor in weights.items():
        if name.startswith("encoder.pos_conv."):
            layer, _, leaf = name.removeprefix("encoder.pos_conv.").split(".")
            mapped[f"student.encoder.positions.{layer}.conv.{leaf}"] = tensor
        elif name.startswith("feature_extractor.conv_layers."):
            layer, rest = name.removeprefix("feature_extractor.conv_layers.").split(".", 1)
            rest = rest.replace("2.1.", "norm.").replace("0.weight", "conv.weight")
            mapped[f"student.frontend.convs.{layer}.{rest}"] = tensor
        else:
            mapped[audio_names(name)] = tensor
    return mapped


def map_text(weights: Weights) -> dict[str, Tensor]:
    mapped = {}
    for name, tensor in weights.items():
        short = name.removeprefix("encoder.").removeprefix("sentence_encoder.")
        if short == "version":
            continue
        for old, new in (
            ("embed_tokens.", "student.frontend.words."),
            ("embed_positions.", "student.encoder.positions."),
            ("layernorm_embedding.", "student.encoder.norm."),
            ("layers.", "student.encoder.blocks."),
            ("regression_head.", "head."),
        ):
            if short.startswith(old):
                mapped[block_names(new + short[len(old) :])] = tensor
    return mapped


def map_vision(weights: Weights) -> dict[str, Tensor]:
    mapped: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name == "rel_pos_bias.relative_position_index":
            continue
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            stem = f"student.encoder.blocks.{layer}."
            if rest == "attn.qkv.weight":
                for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                    mapped[f"{stem}attention.{part}_proj.weight"] = chunk
                continue
            for old, new in (
                ("gamma_1", "scale1"),
                ("gamma_2", "scale2"),
                ("attn.q_bias", "attention.q_proj.bias"),
                ("attn.v_bias", "attention.v_proj.bias"),
                ("attn.proj.", "attention.out_proj."),
            ):
                rest = rest.replace(old, new)
            mapped[stem + rest] = tensor
            continue
        for old, new in (
            ("cls_token", "student.encoder.cls_token"),
            ("mask_token", "student.mask_embedding"),
            ("patch_embed.proj.", "student.frontend.projection."),
            ("rel_pos_bias.relative_position_bias_table", "student.encoder.shared_bias.table"),
            ("norm.", "student.norm."),
            ("lm_head.", "head."),
        ):
            if name.startswith(old):
                mapped[new + name[len(old) :]] = tensor
    return mapped


# ---- tasks


def load(task: Data2VecObjective, student: Weights, teacher: Weights) -> Data2VecObjective:
    """Put mapped student weights (and the teacher's, mapped as if they were a student's) into a task; strict."""
    state = task.state_dict()
    given = dict(student)
    given.update(
        {"teacher.encoder." + n.removeprefix("student."): t for n, t in teacher.items() if n.startswith("student.")}
    )
    given = {name: tensor for name, tensor in given.items() if name in state}
    missing = [
        n for n in state if n not in given and not n.endswith(("token_types.weight", "teacher.encoder.mask_embedding"))
    ]
    assert not missing, missing
    for name in state:
        if name.endswith("token_types.weight"):
            given[name] = torch.zeros_like(state[name])
    task.load_state_dict({**state, **given})
    return task.train()


def ema_config(config: Dump, scope: str, copied: tuple[str, ...]) -> EmaConfig:
    return EmaConfig(
        start=config["ema_decay"], end=config["ema_end_decay"], anneal_updates=config["ema_anneal_end_step"],
        scope=scope, copied=copied,
    )  # fmt: skip


def fairseq_target(config: Dump, overrides: Dump) -> TargetConfig:
    flags = {**config, **overrides}
    kinds = [k for k in ("layer", "instance", "batch", "group") if flags.get(f"{k}_norm_target_layer")]
    final = [k for k in ("layer", "instance") if flags.get(f"{k}_norm_targets")]
    return TargetConfig(
        layers=config["average_top_k_layers"],
        layer_norm=kinds[0] if kinds else "none",
        final_norm=final[0] if final else "none",
        norm_over_padding=True,
    )


def audio_task(dump: Dump, overrides: Dump) -> Data2VecObjective:
    c = dump["config"]
    convs = eval(c["conv_feature_layers"], {"__builtins__": {}})
    depth = c["pos_conv_depth"]
    model = Data2VecAudioModel(
        Data2VecAudioConfig(
            hidden_size=c["encoder_embed_dim"], num_hidden_layers=c["encoder_layers"],
            num_attention_heads=c["encoder_attention_heads"], intermediate_size=c["encoder_ffn_embed_dim"],
            conv_dim=[x[0] for x in convs], conv_kernel=[x[1] for x in convs], conv_stride=[x[2] for x in convs],
            conv_bias=c["conv_bias"], num_conv_pos_embeddings=depth,
            conv_pos_kernel_size=max(3, c["conv_pos"] // depth),
            num_conv_pos_embedding_groups=c["conv_pos_groups"], hidden_dropout=0.0, attention_dropout=0.0,
            activation_dropout=0.0, layerdrop=0.0, compat="transformers",
        )
    )  # fmt: skip
    scale = c["loss_scale"] if c["loss_scale"] is not None else "rsqrt"
    config = ObjectiveConfig(
        target=fairseq_target(c, overrides), ema=ema_config(c, "encoder", ("encoder.positions",)),
        loss_beta=overrides.get("loss_beta", c["loss_beta"]), loss_scale=scale,
    )  # fmt: skip
    teacher = {"encoder." + name: tensor for name, tensor in dump["teacher"].items()}
    return load(Data2VecObjective(model, config), map_audio(dump["student"]), map_audio(teacher))


def text_task(dump: Dump, overrides: Dump) -> Data2VecObjective:
    c = dump["config"]
    encoder = c["transformer"]["encoder"]
    model = Data2VecTextModel(
        Data2VecTextConfig(
            vocab_size=dump["vocab_size"], hidden_size=encoder["embed_dim"], num_hidden_layers=encoder["layers"],
            num_attention_heads=encoder["attention_heads"], intermediate_size=encoder["ffn_embed_dim"],
            max_position_embeddings=c["max_positions"] + dump["pad"] + 1, type_vocab_size=1, layer_norm_eps=1e-5,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=dump["pad"],
            mask_token_id=dump["mask_idx"],
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    scale = overrides.get("loss_scale", c["loss_scale"])
    config = ObjectiveConfig(
        target=fairseq_target(c, overrides),
        ema=ema_config(c, "encoder", ("encoder.positions", "encoder.token_types", "encoder.norm")),
        loss_beta=overrides.get("loss_beta", c["loss_beta"]), loss_scale=float(scale) if scale > 0 else "rsqrt",
        head="mlp" if c["head_layers"] == 2 else "linear",
    )  # fmt: skip
    return load(Data2VecObjective(model, config), map_text(dump["student"]), map_text(dump["teacher"]))


def vision_task(dump: Dump, options: Dump) -> Data2VecObjective:
    c = dump["config"]
    model = Data2VecVisionModel(
        Data2VecVisionConfig(
            hidden_size=c["embed_dim"], num_hidden_layers=c["depth"], num_attention_heads=c["num_heads"],
            intermediate_size=int(c["embed_dim"] * c["mlp_ratio"]), image_size=c["img_size"],
            patch_size=c["patch_size"],
            num_channels=c["in_chans"], layer_norm_eps=1e-6, layer_scale_init_value=c["init_values"],
            drop_path_rate=0.0,
            use_mask_token=True, use_mean_pooling=False, use_shared_relative_position_bias=True,
        )
    )  # fmt: skip
    layers = options["target_layers"]
    assert layers == list(range(c["depth"] - len(layers), c["depth"]))
    config = ObjectiveConfig(
        target=TargetConfig(
            layers=len(layers), source="block" if options["layer_results"] == "end" else "ffn",
            layer_norm="layer" if options["target_layer_norm_last"] else "none",
            final_norm="layer" if options["post_target_layer_norm"] else "none",
        ),
        ema=EmaConfig(start=dump["ema_decay_used"], end=dump["ema_decay_used"], anneal_updates=0, scope="all"),
        loss_beta=options["l1_beta"], loss_scale="mean",
    )  # fmt: skip
    return load(Data2VecObjective(model, config), map_vision(dump["student"]), map_vision(dump["teacher"]))


# ---- batches


def audio_batch(case: Dump) -> dict[str, Tensor]:
    batch = {"input_values": case["source"], "mask": case["mask_indices"].bool()}
    if case["padding_mask"] is not None:
        batch["attention_mask"] = (~case["padding_mask"].bool()).long()
    return batch


def text_batch(dump: Dump, case: Dump) -> dict[str, Tensor]:
    masked = case["masked"].bool()
    clean = torch.where(masked, case["target_tokens"], case["src_tokens"])
    batch = {"input_ids": clean, "mask": masked}
    if not torch.equal(case["target_tokens"], clean):
        batch["teacher_input_ids"] = case["target_tokens"]
    return batch


def vision_batch(case: Dump) -> dict[str, Tensor]:
    return {"pixel_values": case["pixel_values"], "mask": case["bool_masked_pos"].flatten(1).bool()}


# ---- checks


def close(ours: Tensor, theirs: Tensor, relative: float) -> None:
    """Largest error at most `relative` of the largest value."""
    error = float((ours.detach() - theirs).abs().max())
    assert error <= relative * max(float(theirs.abs().max()), 1e-8), f"{error:.3e} of {float(theirs.abs().max()):.3e}"


def run(task: Data2VecObjective, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss sum, per-token losses, predictions and targets, with gradients of the sum left in the task."""
    seen: dict[str, Tensor] = {}
    handle = task.head.register_forward_hook(lambda _m, _i, out: seen.__setitem__("pred", out))
    task.zero_grad(set_to_none=True)
    out = task(batch)
    out.loss_sum.backward()
    handle.remove()
    with torch.no_grad():
        targets = task.targets(batch, task.student.embed(batch))[batch["mask"]]
    from data2vec.objectives.losses import regression_loss

    losses = regression_loss(seen["pred"], targets, beta=task.config.loss_beta, scale=task.scale)
    return out.loss_sum, losses, seen["pred"], targets


def check_gradients(task: nn.Module, theirs: Weights, factor: float = 1.0) -> None:
    ours = {n: p.grad for n, p in task.named_parameters() if p.grad is not None}
    norm = max(float(g.abs().max()) for g in theirs.values())
    compared = 0
    for name, gradient in theirs.items():
        if name.startswith("teacher") or "token_types" in name:
            continue
        if ".k_proj.bias" in name:  # zero in theory
            continue
        assert name in ours, name
        error = float((ours[name] * factor - gradient).abs().max())
        # relative to the tensor, with a floor for those that vanish
        assert error <= 1e-4 * max(float(gradient.abs().max()), 1e-4 * norm), (name, error, float(gradient.abs().max()))
        compared += 1
    assert compared > 20


Loader = Callable[[Path], Dump]


@pytest.fixture(scope="module")
def dumps(oracle_dir: Path) -> Callable[[str], Dump]:
    def read(name: str) -> Dump:
        file = oracle_dir / f"{name}.pt"
        if not file.is_file():
            pytest.skip(f"{file.name} is not in the oracle folder")
        dump: Dump = torch.load(file, weights_only=True)
        return dump

    return read


FAIRSEQ = {
    "v1_audio": (audio_task, lambda d, c: audio_batch(c), map_audio),
    "v1_text": (text_task, text_batch, map_text),
}


@pytest.mark.parametrize("name", sorted(FAIRSEQ))
def test_every_case_of_fairseq(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    make, batch_of, mapping = FAIRSEQ[name]
    assert dump["cases"]
    for case_name, case in dump["cases"].items():
        task = make(dump, case["overrides"])
        batch = batch_of(dump, case)
        loss, losses, pred, target = run(task, batch)
        assert len(target) == case["sample_size"], case_name
        close(target, case["targets"], 1e-5)
        close(pred, case["student_pred"], 1e-5)
        close(losses, case["loss_per_token"] * task.scale, 1e-5)  # the dumps hold them without the scale
        assert loss.item() == pytest.approx(float(case["loss"]), rel=1e-6), case_name
        check_gradients(task, mapping(case["grads_of_sum"]))


def test_every_case_of_the_beit_fork(dumps: Callable[[str], Dump]) -> None:
    dump = dumps("v1_vision")
    assert dump["cases"]
    for case_name, case in dump["cases"].items():
        task = vision_task(dump, case["options"])
        loss, _, pred, target = run(task, vision_batch(case))
        close(target, case["targets"], 1e-5)
        close(pred, case["student_pred"], 1e-5)
        assert loss.item() / len(target) == pytest.approx(float(case["loss"]), rel=1e-6), case_name
        check_gradients(task, map_vision(case["grads"]), factor=1 / len(target))


@pytest.mark.parametrize("name", sorted(FAIRSEQ))
def test_ema_step(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    make, _, mapping = FAIRSEQ[name]
    prefix = "encoder." if name == "v1_audio" else ""
    before = {prefix + n: t for n, t in dump["teacher_before_ema"].items()}
    task = make(
        {**dump, "student": dump["student_before_step"] | dump["student"], "teacher": dump["teacher_before_ema"]}, {}
    )
    assert before
    assert task.after_step(1)["ema_decay"] == pytest.approx(dump["ema_decay_used"])
    expected = mapping({prefix + n: t for n, t in dump["teacher"].items()})
    mine = dict(task.teacher.encoder.named_parameters())
    compared = 0
    for full, tensor in expected.items():
        if (short := full.removeprefix("student.")) in mine:
            close(mine[short], tensor, 1e-6)
            compared += 1
    assert compared > 20


def trajectory(
    task: Data2VecObjective, batch: dict[str, Tensor], plan: Dump, optimizer: torch.optim.Optimizer, ema_first: bool
) -> None:
    clip = plan.get("clip_norm", plan.get("clip"))
    for index, step in enumerate(plan["steps"]):
        if ema_first and index > 0:
            task.after_step(step["update"])
        optimizer.zero_grad(set_to_none=True)
        out = task(batch)
        (out.loss_sum / out.count).backward()
        assert float(out.loss_sum / out.count) == pytest.approx(step["loss"], rel=1e-4), index
        norm = torch.nn.utils.clip_grad_norm_(task.parameters(), clip or float("inf"))
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-3), index
        optimizer.step()
        if not ema_first:
            task.after_step(index + 1)


@pytest.mark.parametrize("name", sorted(FAIRSEQ))
def test_five_steps_of_fairseq(dumps: Callable[[str], Dump], name: str) -> None:
    dump = dumps(name)
    make, batch_of, _ = FAIRSEQ[name]
    plan = dump["trajectory"]
    case = dump["cases"][plan.get("case", next(iter(dump["cases"])))]
    task = make(dump, case["overrides"])
    freeze_token_types(task)
    optimizer = Adam(
        [p for p in task.parameters() if p.requires_grad],
        lr=plan["lr"], betas=plan["betas"], eps=plan["eps"], weight_decay=plan["weight_decay"],
    )  # fmt: skip
    trajectory(task, batch_of(dump, case), plan, optimizer, ema_first=True)


def freeze_token_types(task: Data2VecObjective) -> None:
    """The original has no token types."""
    for name, parameter in task.named_parameters():
        if "token_types" in name:
            parameter.requires_grad_(False)


def test_five_steps_of_the_beit_fork(dumps: Callable[[str], Dump]) -> None:
    dump = dumps("v1_vision")
    plan = dump["trajectory"]
    case = dump["cases"][plan.get("case", "end")]
    task = vision_task(dump, case["options"])
    named = [(n, p) for n, p in task.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.dim() < 2 or n.endswith("cls_token")]
    decayed = [p for n, p in named if not (p.dim() < 2 or n.endswith("cls_token"))]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": plan["weight_decay"]}],
        lr=plan["lr"], betas=plan["betas"], eps=plan["eps"],
    )  # fmt: skip
    trajectory(task, vision_batch(case), plan, optimizer, ema_first=False)

"""The data2vec 2 objective against its plain transcription, and its behaviour on uneven, tiny and padded batches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_v2 import plain_loss
from torch import Tensor

from data2vec.errors import UserError
from data2vec.models.audio import frontend
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, DecoderConfig, EmaConfig, TargetConfig
from data2vec.objectives.masking import BlockMask1d, BlockMask2d, RandomMask
from data2vec.objectives.split import mask_indices
from data2vec.objectives.v2 import Data2Vec2Objective

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 32,
    "layerdrop": 0.0,
}


def audio(**fields: Any) -> Data2Vec2AudioModel:
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "prenet_dropout": 0.0}
    convs = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
    positions = {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5, "num_conv_pos_embedding_groups": 4}
    return Data2Vec2AudioModel(Data2Vec2AudioConfig(**SMALL | still | convs | positions | fields))


def text(**fields: Any) -> Data2Vec2TextModel:
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    size = {"vocab_size": 30, "max_position_embeddings": 24}
    return Data2Vec2TextModel(Data2Vec2TextConfig(**SMALL | still | size | fields))


def vision(**fields: Any) -> Data2Vec2VisionModel:
    size = {"image_size": 24, "patch_size": 4, "prenet_depth": 1}
    return Data2Vec2VisionModel(Data2Vec2VisionConfig(**SMALL | size | fields))


def config_for(kind: str, **fields: Any) -> Data2Vec2ObjectiveConfig:
    """The published objective in small."""
    made = getattr(Data2Vec2ObjectiveConfig, kind)()
    decoder = replace(made.decoder, channels=8, groups=min(made.decoder.groups, 4), layers=3, dropout=0.0)
    return replace(made, target=replace(made.target, layers=2), decoder=decoder, **fields)


MODELS = {"audio": audio, "text": text, "vision": vision}
MASKS = {"audio": (BlockMask1d(), 39), "text": (RandomMask(0.48), 20), "vision": (BlockMask2d(), (6, 6))}


def inputs(kind: str, items: int) -> dict[str, Tensor]:
    if kind == "audio":
        return {"input_values": torch.randn(items, 400)}  # 39 frames of 10 samples
    if kind == "text":
        return {"input_ids": torch.randint(4, 30, (items, 20))}
    return {"pixel_values": torch.randn(items, 3, 24, 24)}


def masked(kind: str, items: int, copies: int, seed: int = 0) -> dict[str, Tensor]:
    masker, size = MASKS[kind]
    rng = np.random.default_rng(seed)
    masks = np.stack([np.stack([masker(rng, size) for _ in range(copies)]) for _ in range(items)])
    return {**inputs(kind, items), "mask": torch.from_numpy(masks)}


def with_noise(batch: dict[str, Tensor], width: int = 16) -> dict[str, Tensor]:
    return {**batch, "noise": 0.01 * torch.randn(*batch["mask"].shape, width)}


def perturb(task: Data2Vec2Objective) -> Data2Vec2Objective:
    """Every parameter generic, teacher apart from student."""
    with torch.no_grad():
        for parameter in task.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return task


def gradients(loss: Tensor, task: Data2Vec2Objective) -> dict[str, Tensor]:
    named = [(n, p) for n, p in task.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {name: g for (name, _), g in zip(named, found, strict=True) if g is not None}


@pytest.mark.parametrize("cls_rows", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["audio", "text", "vision"])
def test_equals_the_plain_transcription(kind: str, cls_rows: str) -> None:
    task = perturb(Data2Vec2Objective(MODELS[kind](), config_for(kind, cls_rows=cls_rows))).train()
    batch = with_noise(masked(kind, 2, 3))
    out = task(batch)
    loss, count = plain_loss(task, batch)
    assert float(out.count) == count
    torch.testing.assert_close(out.loss_sum, loss, rtol=1e-5, atol=0)
    ours, theirs = gradients(out.loss_sum, task), gradients(loss, task)
    assert set(ours) == set(theirs) == {n for n, p in task.named_parameters() if p.requires_grad}
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        limit = 1e-4 * max(float(gradient.abs().max()), 1e-3 * largest)
        assert float((ours[name] - gradient).abs().max()) <= limit, name


@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("per_layer", [True, False])
def test_every_form_of_alibi_with_a_prenet_and_extra_tokens(per_head: bool, per_layer: bool) -> None:
    model = audio(alibi_scale_per_head=per_head, alibi_scale_per_layer=per_layer, prenet_depth=1, num_extra_tokens=2)
    task = perturb(Data2Vec2Objective(model, config_for("audio", cls_weight=0.5)))
    batch = with_noise(masked("audio", 2, 2))
    torch.testing.assert_close(task(batch).loss_sum, plain_loss(task, batch)[0], rtol=1e-5, atol=0)


def test_smooth_l1_and_other_norms() -> None:
    config = config_for("text", loss_beta=0.7)
    config = replace(config, target=TargetConfig(layers=2, layer_norm="layer", final_norm="instance"))
    task = perturb(Data2Vec2Objective(text(), config))
    batch = with_noise(masked("text", 2, 2))
    torch.testing.assert_close(task(batch).loss_sum, plain_loss(task, batch)[0], rtol=1e-5, atol=0)


# ---- padding: a batch of clips equals the clips alone


def alone(task: Data2Vec2Objective, batch: dict[str, Tensor], item: int, length: int) -> Tensor:
    """Loss sum of one item without its padding; `length` in samples or tokens."""
    name = next(name for name in batch if name.startswith("input_"))
    part = {name: batch[name][item : item + 1, :length]}
    frames = task.student.embed(part).features.shape[1]
    part["mask"] = batch["mask"][item : item + 1, :, :frames]
    part["noise"] = batch["noise"][item : item + 1, :, :frames]
    loss: Tensor = task(part).loss_sum
    return loss


@settings(max_examples=15)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(0, 2**16))
def test_padded_text_equals_each_text_alone(lengths: list[int], seed: int) -> None:
    torch.manual_seed(0)
    task = perturb(Data2Vec2Objective(text(), config_for("text")))
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(20)[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, 30, valid.shape, generator=generator).masked_fill(~valid, 1)
    mask = torch.rand(len(lengths), 2, 20, generator=generator) < 0.5  # on padding too, and of any count
    batch = with_noise({"input_ids": ids, "attention_mask": valid.long(), "mask": mask})
    out = task(batch)
    assert float(out.count) == int((mask & valid[:, None]).sum())
    expected = sum(alone(task, batch, item, length) for item, length in enumerate(lengths))
    torch.testing.assert_close(out.loss_sum, torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(st.lists(st.integers(30, 400), min_size=1, max_size=3), st.integers(0, 2**16))
def test_padded_speech_equals_each_clip_alone(lengths: list[int], seed: int) -> None:
    torch.manual_seed(0)
    task = perturb(Data2Vec2Objective(audio(prenet_depth=1), config_for("audio")))
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(400)[None] < torch.tensor(lengths)[:, None]
    waves = torch.randn(valid.shape, generator=generator).masked_fill(~valid, 0.0)
    mask = torch.rand(len(lengths), 2, 39, generator=generator) < 0.5
    batch = with_noise({"input_values": waves, "attention_mask": valid.long(), "mask": mask})
    expected = sum(alone(task, batch, item, length) for item, length in enumerate(lengths))
    torch.testing.assert_close(task(batch).loss_sum, torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


def test_what_lies_in_padding_does_not_matter() -> None:
    task = perturb(Data2Vec2Objective(text(), config_for("text")))
    batch = with_noise(masked("text", 2, 2))
    batch["attention_mask"] = torch.ones(2, 20, dtype=torch.long)
    batch["attention_mask"][1, 12:] = 0
    before = task(batch)
    batch["input_ids"][1, 12:] = 7
    batch["mask"][1, :, 12:] = ~batch["mask"][1, :, 12:]
    batch["noise"][1, :, 12:] += 5.0
    after = task(batch)
    torch.testing.assert_close(after.loss_sum, before.loss_sum)
    assert torch.equal(after.count, before.count)
    for name, value in before.sums.items():
        if name != "local":  # of all features, as the local encoder gives them
            torch.testing.assert_close(after.sums[name], value)


def test_released_padding_is_an_option() -> None:
    """Algorithms P8: padding may be masked, predicted and counted."""
    config = config_for("text", count_padding=True)
    config = replace(config, target=replace(config.target, norm_over_padding=True))
    task = perturb(Data2Vec2Objective(text(), config))
    batch = with_noise(masked("text", 2, 2))
    batch["attention_mask"] = torch.ones(2, 20, dtype=torch.long)
    batch["attention_mask"][1, 12:] = 0
    assert float(task(batch).count) == int(batch["mask"].sum())


# ---- extremes


@settings(max_examples=25)
@given(st.integers(30, 400), st.integers(1, 3), st.integers(0, 2**16))
def test_clips_of_any_length_are_masked_and_learned_from(samples: int, copies: int, seed: int) -> None:
    """Also those that are shorter than a block of the mask."""
    torch.manual_seed(0)
    task = Data2Vec2Objective(audio(), config_for("audio"))
    frames = task.student.config.frames(samples)
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(np.stack([BlockMask1d()(rng, frames) for _ in range(copies)]))[None]
    check_step(task, {"input_values": torch.randn(1, samples), "mask": mask})


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**16))
def test_grids_of_any_size(rows: int, columns: int, copies: int, seed: int) -> None:
    """Also those that are smaller than a block; a single patch has nothing to predict."""
    torch.manual_seed(0)
    task = Data2Vec2Objective(vision(image_size=(rows * 4, columns * 4)), config_for("vision"))
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(np.stack([BlockMask2d()(rng, (rows, columns)) for _ in range(copies)]))[None]
    check_step(task, {"pixel_values": torch.randn(1, 3, rows * 4, columns * 4), "mask": mask})


@pytest.mark.parametrize("hidden", ["all", "none"])
def test_rows_that_hide_all_or_nothing(hidden: str) -> None:
    for kind in MODELS:
        batch = masked(kind, 2, 2)
        batch["mask"][0] = hidden == "all"
        check_step(Data2Vec2Objective(MODELS[kind](), config_for(kind)), batch)
        batch["mask"][:] = hidden == "all"
        check_step(Data2Vec2Objective(MODELS[kind](), config_for(kind)), batch)


def test_rows_of_nothing_but_padding() -> None:
    task = Data2Vec2Objective(text(), config_for("text"))
    batch = masked("text", 2, 2)
    batch["attention_mask"] = torch.ones(2, 20, dtype=torch.long)
    batch["attention_mask"][1] = 0
    check_step(task, batch)
    batch["attention_mask"][:] = 0
    out = check_step(task, batch)
    assert float(out.count) == 0
    waves = masked("audio", 2, 2)
    waves["attention_mask"] = torch.zeros(2, 400, dtype=torch.long)
    assert float(check_step(Data2Vec2Objective(audio(), config_for("audio")), waves).count) == 0


@settings(max_examples=25)
@given(st.data(), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_any_mask_over_any_padding(data: st.DataObject, copies: int, prob: float) -> None:
    """Rows that keep different counts, padding on either side or in the middle, rows of nothing but padding."""
    torch.manual_seed(0)
    kind = data.draw(st.sampled_from(["audio", "text"]))
    length, tokens = (400, 39) if kind == "audio" else (20, 20)
    bounds = data.draw(st.lists(st.tuples(st.integers(0, length), st.integers(0, length)), min_size=1, max_size=3))
    place = torch.arange(length)
    valid = torch.stack([(place >= start) & (place < stop) for start, stop in bounds])
    if kind == "text" and data.draw(st.booleans()):
        valid &= place % 3 != 0
    task = Data2Vec2Objective(MODELS[kind](), config_for(kind))
    mask = torch.rand(len(bounds), copies, tokens) < prob
    batch = {**inputs(kind, len(bounds)), "attention_mask": valid.long(), "mask": mask}
    padding = task.student.embed(batch).padding_mask
    out = check_step(task, batch)
    assert float(out.count) == int((mask & ~padding[:, None]).sum())


def check_step(task: Data2Vec2Objective, batch: dict[str, Tensor]) -> Any:
    """A finite loss with gradients for everything that is trained; 0 where nothing is to predict."""
    out = task.train()(batch)
    out.loss_sum.backward()
    assert math.isfinite(float(out.loss_sum.detach()))
    assert (float(out.loss_sum.detach()) > 0) == (float(out.count) > 0)
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name  # DDP waits for every one of them
            assert bool(parameter.grad.isfinite().all()), name
    return out


@pytest.mark.parametrize("shape", [(2, 20), (2, 2, 19), (3, 2, 20)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Algorithms P7: masks drawn for another length."""
    batch = {**inputs("text", 2), "mask": torch.zeros(shape, dtype=torch.bool)}
    with pytest.raises(UserError, match="mask must be"):
        Data2Vec2Objective(text(), config_for("text"))(batch)


# ---- indices made beforehand


def indexed(task: Data2Vec2Objective, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    padding = task.student.embed(batch).padding_mask if "attention_mask" in batch else None
    visible, hidden = mask_indices(batch["mask"], padding)
    return {**batch, "visible": visible, "hidden": hidden}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("kind", ["audio", "text", "vision"])
def test_indices_made_beforehand_change_nothing(kind: str, padded: bool) -> None:
    task, batch = perturb(Data2Vec2Objective(MODELS[kind](), config_for(kind))), with_noise(masked(kind, 2, 3))
    if padded and kind != "vision":
        name = next(iter(batch))
        batch["attention_mask"] = torch.ones_like(batch[name], dtype=torch.long)
        batch["attention_mask"][1, batch[name].shape[1] // 2 :] = 0
    without, given_ = task(batch), task(indexed(task, batch))
    torch.testing.assert_close(given_.loss_sum, without.loss_sum)
    for name, value in without.sums.items():
        torch.testing.assert_close(given_.sums[name], value)
    batch["mask"][0, 0] = True  # rows that keep different numbers of tokens
    torch.testing.assert_close(task(indexed(task, batch)).loss_sum, task(batch).loss_sum)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("kind", ["audio", "text", "vision"])
def test_a_step_never_waits_for_the_device(kind: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the meta device have no values: reading one raises."""
    task, batch = Data2Vec2Objective(MODELS[kind](), config_for(kind)), masked(kind, 2, 3)
    if padded and kind != "vision":
        batch["attention_mask"] = torch.ones_like(batch[next(iter(batch))], dtype=torch.long)
    batch = {name: tensor.to("meta") for name, tensor in indexed(task, batch).items()}
    task = task.to("meta").train()
    monkeypatch.setattr(frontend, "strided_conv", plain_strided_conv)  # which asks for autocast: unknown for meta
    out = task(batch)
    (out.loss_sum / out.count).backward()
    task.after_step(1)
    del batch["visible"], batch["hidden"]
    with pytest.raises(RuntimeError, match="meta"):
        task(batch)


def plain_strided_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    padded = F.pad(x.transpose(1, 2), (0, weight.shape[-1]))
    return F.conv1d(padded, weight, bias, stride).transpose(1, 2)[:, : x.shape[1] // stride]


# ---- sums


def test_micro_batches_add_up() -> None:
    """The loss of a batch is the sum of its halves, CLS loss included (algorithms P6)."""
    for kind in MODELS:
        task = perturb(Data2Vec2Objective(MODELS[kind](), config_for(kind)))
        batch = with_noise(masked(kind, 4, 2))
        whole, halves = task(batch), [task({n: t[i : i + 2] for n, t in batch.items()}) for i in (0, 2)]
        torch.testing.assert_close(halves[0].loss_sum + halves[1].loss_sum, whole.loss_sum, rtol=1e-5, atol=0)
        assert halves[0].count + halves[1].count == whole.count
        for name, value in whole.sums.items():
            added = halves[0].sums[name] + halves[1].sums[name]
            torch.testing.assert_close(added, value, rtol=1e-4, atol=1e-3)


def test_the_released_cls_loss_grows_with_the_rows() -> None:
    batch = with_noise(masked("vision", 4, 2))
    part = {name: tensor[:2] for name, tensor in batch.items()}
    shares = {}
    for rows in ("mean", "sum"):
        torch.manual_seed(0)
        with_cls = perturb(Data2Vec2Objective(vision(), config_for("vision", cls_rows=rows)))
        without = Data2Vec2Objective(with_cls.student, config_for("vision", cls_weight=0.0))
        without.load_state_dict(with_cls.state_dict())
        terms = [
            float((with_cls(b).loss_sum - without(b).loss_sum).detach()) / float(b["mask"].sum()) for b in (batch, part)
        ]
        shares[rows] = terms[0] / terms[1]
    assert shares["sum"] / shares["mean"] == pytest.approx(2.0, rel=1e-3)


def test_the_log_reads_the_sums() -> None:
    task = perturb(Data2Vec2Objective(vision(), config_for("vision")))
    batch = with_noise(masked("vision", 3, 2))
    out = task(batch)
    log = task.summarize(out.sums)
    tokens = task.student.embed(batch)
    target = task.targets(batch, tokens).repeat_interleave(2, 0)[batch["mask"].flatten(0, 1)]
    assert log["target_var"] == pytest.approx(float((target.var(0) + 1e-6).sqrt().mean()), rel=1e-4)
    assert log["masked"] == pytest.approx(float(batch["mask"].float().mean()))
    assert log["cls_loss"] > 0


# ---- teacher


def test_scopes_say_what_the_teacher_averages_and_what_it_copies() -> None:
    moved: dict[str, set[str]] = {}
    for scope in ("all", "encoder", "blocks"):
        config = config_for("text", ema=EmaConfig(start=0.5, end=0.5, anneal_updates=0, scope=scope))
        task = Data2Vec2Objective(text(prenet_depth=1), config)
        with torch.no_grad():
            for parameter in task.student.parameters():
                parameter += 1.0
        before = {n: p.clone() for n, p in task.teacher.encoder.named_parameters()}
        assert task.after_step(1) == {"ema_decay": 0.5}
        mine = dict(task.teacher.encoder.named_parameters())
        moved[scope] = {n for n in mine if torch.allclose(mine[n], before[n] + 0.5)}
        copied = set(mine) - moved[scope]
        assert all(torch.allclose(mine[n], before[n] + 1.0) for n in copied)
        assert any(n.startswith("frontend.") for n in mine) == (scope == "all")
    assert moved["all"] > moved["encoder"] > moved["blocks"]
    assert {n.split(".")[2] for n in moved["blocks"]} == {"1", "2"}  # block 0 is the prenet
    assert all(n.startswith("encoder.blocks.") for n in moved["blocks"])


def test_the_teacher_reads_the_students_features_once() -> None:
    """One local pass and one teacher pass, whatever the number of masks."""
    task = Data2Vec2Objective(audio(), config_for("audio"))
    calls = {"front": 0, "teacher": 0, "student": 0}
    task.student.frontend.register_forward_hook(lambda *_: calls.__setitem__("front", calls["front"] + 1))
    task.teacher.encoder.encoder.register_forward_hook(
        lambda _m, _i, out: calls.__setitem__("teacher", calls["teacher"] + len(out[0]))
    )
    task.student.encoder.register_forward_hook(
        lambda _m, _i, out: calls.__setitem__("student", calls["student"] + out[0].shape[0] * out[0].shape[1])
    )
    batch = masked("audio", 2, 8)
    task(batch)
    assert calls == {"front": 1, "teacher": 2, "student": int((~batch["mask"]).sum())}


def test_blocks_need_to_be_known() -> None:
    class Other(torch.nn.Module):
        pass

    with pytest.raises(UserError, match="blocks"):
        Data2Vec2Objective(Other(), config_for("text"), width=16)  # type: ignore[arg-type]


def test_prenet_blocks_give_no_targets() -> None:
    with pytest.raises(UserError, match="less prenet_depth is 1"):
        Data2Vec2Objective(audio(prenet_depth=2), config_for("audio"))


def test_masks_of_numbers_are_understood() -> None:
    task, batch = Data2Vec2Objective(text(), config_for("text")), with_noise(masked("text", 2, 2))
    torch.testing.assert_close(task({**batch, "mask": batch["mask"].long()}).loss_sum, task(batch).loss_sum)


def test_a_cls_loss_needs_a_token() -> None:
    task = Data2Vec2Objective(vision(num_extra_tokens=0), config_for("vision"))
    with pytest.raises(UserError, match="num_extra_tokens"):
        task(masked("vision", 1, 1))


def test_published_values() -> None:
    audio_large, huge = Data2Vec2ObjectiveConfig.audio("large"), Data2Vec2ObjectiveConfig.vision("huge14")
    assert (audio_large.target.layers, audio_large.decoder.channels, audio_large.ema.end) == (16, 768, 1.0)
    assert (huge.target.layers, huge.decoder.kernel, huge.decoder.layers, huge.ema.anneal_updates) == (
        24,
        5,
        3,
        300_000,
    )
    text_large = Data2Vec2ObjectiveConfig.text("large")
    assert (text_large.target.layer_norm, text_large.target.final_norm, text_large.loss_scale) == (
        "layer",
        "instance",
        1.0,
    )
    with pytest.raises(UserError, match="groups"):
        DecoderConfig(channels=10, groups=4)

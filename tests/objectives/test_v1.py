"""The v1 objective: teacher, targets, loss and collapse, without dumps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel, beit_init
from data2vec.objectives.config import EmaConfig, ObjectiveConfig, TargetConfig
from data2vec.objectives.losses import regression_loss, resolve_scale
from data2vec.objectives.targets import average_layers, normalize
from data2vec.objectives.teacher import Teacher
from data2vec.objectives.v1 import Data2VecObjective

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tasks() -> dict[str, tuple[Data2VecObjective, dict[str, Tensor]]]:
    """A tiny task and batch a modality."""
    torch.manual_seed(0)
    target = TargetConfig(layers=2)
    audio = Data2VecAudioModel(
        Data2VecAudioConfig(**SMALL, conv_dim=(8,) * 7, conv_pos_kernel_size=3, num_conv_pos_embedding_groups=4)
    )
    text = Data2VecTextModel(
        Data2VecTextConfig(**SMALL, vocab_size=40, max_position_embeddings=20), add_pooling_layer=False
    )
    vision = Data2VecVisionModel(
        Data2VecVisionConfig(**SMALL, image_size=16, patch_size=4, use_mask_token=True, use_mean_pooling=False)
    )
    copied = ("encoder.positions", "encoder.token_types", "encoder.norm")
    return {
        "audio": (
            Data2VecObjective(
                audio, ObjectiveConfig(target=target, ema=EmaConfig(copied=("encoder.positions",), anneal_updates=10))
            ),
            {"input_values": torch.randn(2, 4000), "mask": torch.arange(12).expand(2, 12) % 3 == 0},
        ),
        "text": (
            Data2VecObjective(
                text,
                ObjectiveConfig(
                    target=target, ema=EmaConfig(copied=copied, anneal_updates=10), loss_scale=1.0, head="mlp"
                ),
            ),
            {"input_ids": torch.randint(4, 39, (2, 9)), "mask": torch.arange(9).expand(2, 9) % 3 == 0},
        ),
        "vision": (
            Data2VecObjective(
                vision,
                ObjectiveConfig(
                    target=TargetConfig(layers=2, source="block", layer_norm="layer", final_norm="layer"),
                    ema=EmaConfig(scope="all", anneal_updates=10),
                    loss_beta=2.0,
                    loss_scale="mean",
                ),
            ),
            {"pixel_values": torch.randn(2, 3, 16, 16), "mask": torch.arange(16).expand(2, 16) % 2 == 0},
        ),
    }


@pytest.mark.parametrize("name", ["audio", "text", "vision"])
def test_a_step_learns_and_the_teacher_follows(name: str) -> None:
    task, batch = tasks()[name]
    task.train()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    before = {n: p.clone() for n, p in task.teacher.encoder.named_parameters()}
    out = task(batch)
    assert out.loss_sum.item() > 0  # with post-norm, an unmasked student would equal its teacher
    assert out.count.item() == int(batch["mask"].sum())
    out.loss_sum.backward()
    assert all(p.grad is not None for n, p in task.head.named_parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    optimizer.step()
    decay = task.after_step(1)["ema_decay"]
    student = dict(task.student.named_parameters())
    for param_name, mine in task.teacher.encoder.named_parameters():
        theirs = student[param_name]
        copied = any(param_name.startswith(prefix) for prefix in task.config.ema.copied)
        expected = theirs if copied else decay * before[param_name] + (1 - decay) * theirs
        torch.testing.assert_close(mine, expected)
    summary = task.summarize(out.sums)
    assert set(summary) >= {"target_var", "pred_var", "local_var", "position_share", "masked"}
    assert all(value == value for value in summary.values())


@pytest.mark.parametrize("name", ["audio", "text", "vision"])
def test_the_teacher_has_no_dropout_and_no_frontend_it_does_not_need(name: str) -> None:
    task, batch = tasks()[name]
    task.train()
    assert not task.teacher.training
    assert hasattr(task.teacher.encoder, "frontend") == (name == "vision")
    tokens = task.student.embed(batch)
    torch.testing.assert_close(task.targets(batch, tokens), task.targets(batch, tokens))
    assert next(iter(task.student._modules)) == "frontend"


def test_what_is_masked_does_not_reach_the_student() -> None:
    for name, (task, batch) in tasks().items():
        task.eval()
        key = next(k for k in batch if k != "mask")
        tokens = task.student.embed(batch)
        changed = type(tokens)(
            torch.where(batch["mask"][..., None], torch.randn_like(tokens.features), tokens.features),
            tokens.padding_mask,
            tokens.grid,
        )
        one = task.student.contextualize(tokens, batch["mask"]).output
        other = task.student.contextualize(changed, batch["mask"]).output
        torch.testing.assert_close(one, other, msg=f"{name} {key}")


def test_integer_buffers_are_copied_never_averaged() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.register_buffer("index", torch.arange(1000))

    student = Indexed()
    teacher = Teacher(student, embeds=True)
    with torch.no_grad():
        student.weight.fill_(1.0)
    for _ in range(3):
        teacher.follow(student, 0.9999)
    assert torch.equal(teacher.encoder.index, torch.arange(1000))
    assert float(teacher.encoder.weight[0]) == pytest.approx(1 - 0.9999**3, rel=1e-3)
    teacher.follow(student, 1.0)
    assert float(teacher.encoder.weight[0]) < 1e-3


@pytest.mark.parametrize("kind", ["layer", "instance", "batch", "group", "none"])
def test_norms_against_torch(kind: str) -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    expected = {
        "layer": F.layer_norm(x, (4,)),
        "instance": F.instance_norm(x.transpose(1, 2)).transpose(1, 2),
        "batch": F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2),
        "group": F.layer_norm(x.transpose(0, 1), (3, 4)).transpose(0, 1),
        "none": x,
    }[kind]
    torch.testing.assert_close(normalize(x, kind), expected)


@pytest.mark.parametrize("kind", ["layer", "instance"])
def test_padding_does_not_count_in_norms(kind: str) -> None:
    x = torch.randn(2, 6, 4)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    expected = normalize(x[1:, :4], kind)
    torch.testing.assert_close(normalize(x, kind, padding)[1:, :4], expected)


def test_average_is_of_the_top_layers() -> None:
    layers = [torch.full((1, 2, 4), float(i)) for i in range(4)]
    config = TargetConfig(layers=2, layer_norm="none")
    torch.testing.assert_close(average_layers(layers, config), torch.full((1, 2, 4), 2.5))
    with pytest.raises(ValueError, match=r"target\.layers"):
        average_layers(layers, TargetConfig(layers=5))


def test_losses_against_the_formula() -> None:
    pred, target = torch.randn(6, 4) * 3, torch.randn(6, 4)
    error = (pred - target).abs()
    for beta in (0.0, 0.5, 4.0):
        plain = error**2 if beta == 0 else torch.where(error < beta, error**2 / (2 * beta), error - beta / 2)
        ours = regression_loss(pred, target, beta=beta, scale=0.5)
        torch.testing.assert_close(ours, plain.sum(1) * 0.5)
    assert resolve_scale("rsqrt", 16) == 0.25
    assert resolve_scale("mean", 16) == 1 / 16
    assert resolve_scale(3.0, 16) == 3.0


def test_ema_decay_rises_linearly_then_stays() -> None:
    ema = EmaConfig(start=0.9, end=0.99, anneal_updates=10)
    assert ema.decay(0) == pytest.approx(0.9)
    assert ema.decay(1) == pytest.approx(0.909)
    assert ema.decay(10) == ema.decay(1000) == 0.99


@pytest.mark.parametrize(
    ("field", "build"),
    [
        ("loss_beta", lambda: ObjectiveConfig(loss_beta=-1.0)),
        ("layers", lambda: TargetConfig(layers=0)),
        ("layer_norm", lambda: TargetConfig(layer_norm="median")),  # type: ignore[arg-type]
        ("start", lambda: EmaConfig(start=1.5)),
    ],
)
def test_values_out_of_range_name_their_field(field: str, build: object) -> None:
    with pytest.raises(ValueError, match=field):
        build()  # type: ignore[operator]


def test_beit_init_scales_the_output_layers_by_depth() -> None:
    config = Data2VecVisionConfig(
        **{**SMALL, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4},
        image_size=16,
        patch_size=4,
        use_mask_token=True,
    )
    model = beit_init(Data2VecVisionModel(config))
    for depth, block in enumerate(model.encoder.blocks, start=1):
        for layer in (block.attention.out_proj, block.mlp.fc2):
            assert float(layer.weight.std()) == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.05)
    assert 0 < float(model.encoder.cls_token.detach().abs().max()) <= 0.02

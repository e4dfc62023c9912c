"""The fused Adam against the formula written out in float64, against torch's AdamW, and the groups."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.training.config import OptimConfig
from data2vec.training.optim import Adam, build_optimizer, parameter_groups, set_learning_rate

LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.98), 1e-3, 0.1


def plain_fairseq_adam(p: Tensor, grads: list[Tensor]) -> Tensor:
    """`fairseq/optim/adam.py`, one parameter, in its own words."""
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t, grad in enumerate(grads, start=1):
        m = BETAS[0] * m + (1 - BETAS[0]) * grad
        v = BETAS[1] * v + (1 - BETAS[1]) * grad**2
        p = p * (1 - LR * DECAY)
        p = p - LR * math.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t) * m / (v.sqrt() + EPS)
    return p


def run(optimizer: torch.optim.Optimizer, p: Tensor, grads: list[Tensor]) -> Tensor:
    for grad in grads:
        p.grad = grad.clone()
        optimizer.step()
    return p.detach()


@pytest.fixture
def start() -> tuple[Tensor, list[Tensor]]:
    p = torch.randn(7, 5, dtype=torch.float64)
    return p, [torch.randn_like(p) * 10.0 ** -(i % 5) for i in range(20)]


def test_equals_the_plain_formula(start: tuple[Tensor, list[Tensor]]) -> None:
    p, grads = start
    ours = p.clone().requires_grad_()
    run(Adam([ours], LR, BETAS, EPS, DECAY), ours, grads)
    torch.testing.assert_close(ours.detach(), plain_fairseq_adam(p, grads), rtol=1e-12, atol=1e-14)


def test_corrected_eps_is_adamw(start: tuple[Tensor, list[Tensor]]) -> None:
    p, grads = start
    ours, theirs = p.clone().requires_grad_(), p.clone().requires_grad_()
    run(Adam([ours], LR, BETAS, EPS, DECAY, corrected_eps=True), ours, grads)
    run(torch.optim.AdamW([theirs], LR, BETAS, EPS, DECAY), theirs, grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_place_of_eps_is_felt_when_gradients_are_small() -> None:
    """With |g| = eps the first step is lr / (1 + 1 / sqrt(1 - b2)) for fairseq and lr / 2 for AdamW."""
    steps = {}
    for corrected in (False, True):
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        run(Adam([p], LR, BETAS, EPS, corrected_eps=corrected), p, [torch.full((1,), EPS, dtype=torch.float64)])
        steps[corrected] = -p.item()
    assert steps[True] == pytest.approx(LR / 2)
    assert steps[False] == pytest.approx(LR / (1 + 1 / math.sqrt(1 - BETAS[1])))


def test_parameter_without_gradient_does_not_age(start: tuple[Tensor, list[Tensor]]) -> None:
    p, grads = start
    always, seldom = p.clone().requires_grad_(), p.clone().requires_grad_()
    optimizer = Adam([always, seldom], LR, BETAS, EPS, DECAY)
    for i, grad in enumerate(grads):
        always.grad, seldom.grad = grad, grad if i % 3 == 0 else None
        optimizer.step()
    torch.testing.assert_close(always.detach(), plain_fairseq_adam(p, grads), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(seldom.detach(), plain_fairseq_adam(p, grads[::3]), rtol=1e-12, atol=1e-14)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mask_embedding = nn.Parameter(torch.zeros(1, 1, 4))
        self.frontend = nn.Linear(4, 4)
        self.encoder = nn.Module()
        self.encoder.positions = nn.Embedding(3, 4)
        self.encoder.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.encoder.layer_norm = nn.LayerNorm(4)
        self.decoder = nn.Linear(4, 4)
        self.teacher = nn.Linear(4, 4).requires_grad_(False)


def values(config: OptimConfig, field: str) -> dict[str, float]:
    net = Net()
    groups = parameter_groups(net.named_parameters(), config)
    owner = {id(p): group[field] for group in groups for p in group["params"]}
    return OrderedDict((name, owner[id(p)]) for name, p in net.named_parameters() if id(p) in owner)


def test_decay_spares_vectors_and_the_named() -> None:
    decay = values(OptimConfig(weight_decay=0.05), "weight_decay")
    assert {name for name, value in decay.items() if value} == {
        "mask_embedding",
        "frontend.weight",
        *(f"encoder.blocks.{i}.weight" for i in range(3)),
        "decoder.weight",
    }
    assert "teacher.weight" not in decay
    assert set(values(OptimConfig(weight_decay=0.05, decay="all"), "weight_decay").values()) == {0.05}


def test_rate_factors() -> None:
    scale = values(OptimConfig(layer_decay=0.5, lr_scale={"decoder": 3.0}), "lr_scale")
    assert scale["cls_token"] == scale["frontend.weight"] == 0.5**4
    assert [scale[f"encoder.blocks.{i}.weight"] for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert scale["encoder.layer_norm.weight"] == 1
    assert scale["decoder.bias"] == 3
    optimizer = build_optimizer(Net(), OptimConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 8.0)
    assert {group["lr"] for group in optimizer.param_groups} == {8.0, 4.0, 2.0, 1.0, 0.5}


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="lr_scale = 'decodr'"):
        build_optimizer(Net(), OptimConfig(lr_scale={"decodr": 2.0}))
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(Net().requires_grad_(False), OptimConfig())
    with pytest.raises(UserError, match="float32"):
        build_optimizer(Net().half(), OptimConfig())

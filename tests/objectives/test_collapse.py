"""The collapse monitors: equal to their plain definitions, additive, and loud about both kinds of collapse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data2vec.objectives.collapse import findings, position_share, position_sums, variance, variance_sums
from data2vec.objectives.config import CollapseConfig


def share(features: Tensor, valid: Tensor | None = None) -> float:
    return position_share(position_sums(features, None if valid is None else ~valid))


def plain_share(features: Tensor, valid: Tensor) -> float:
    """1 - within / total, position by position, item by item."""
    centred = [row[here] - row[here].mean(0) for row, here in zip(features.double(), valid, strict=True)]
    within = total = 0.0
    for t in range(features.shape[1]):
        items = [row[int(here[:t].sum())] for row, here in zip(centred, valid, strict=True) if here[t]]
        if len(items) >= 2:
            stacked = torch.stack(items)
            within += len(items) * float(stacked.var(0, unbiased=True).sum())
            total += float(stacked.square().sum())
    return 1 - within / total


def ragged(seed: int, items: int = 5, length: int = 9, width: int = 4) -> tuple[Tensor, Tensor]:
    """Random features with something in common at each position, and random right padding."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(length, width, generator=generator)
    features = common + torch.randn(items, length, width, generator=generator) + 3
    ends = torch.randint(2, length + 1, (items, 1), generator=generator)
    return features, torch.arange(length) < ends


@given(st.integers(0, 2**31), st.integers(2, 200), st.integers(1, 8), st.floats(-100, 100))
def test_variance_is_the_published_formula(seed: int, tokens: int, width: int, shift: float) -> None:
    z = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)) + shift
    expected = float((z.double().var(0, unbiased=True) + 1e-6).sqrt().mean())
    assert variance(variance_sums(z)) == pytest.approx(expected, rel=1e-9)


def test_variance_sums_add_up_over_micro_batches() -> None:
    z = torch.randn(6, 7, 3)
    first, second = (variance_sums(part) for part in z.split([2, 4]))
    assert variance(first + second) == pytest.approx(variance(variance_sums(z)), rel=1e-12)
    assert variance(variance_sums(torch.full((50, 3), 7.0))) == pytest.approx(1e-3)
    assert math.isnan(variance(variance_sums(z[:1, 0])))
    assert math.isnan(variance(variance_sums(z[:0])))


def test_variance_sums_leave_padding_out() -> None:
    features, valid = ragged(3)
    filled = features.masked_fill(~valid[..., None], 1e6)
    assert variance(variance_sums(filled, ~valid)) == pytest.approx(variance(variance_sums(features[valid])), rel=1e-12)


@given(st.integers(0, 2**31))
def test_position_share_is_the_plain_analysis_of_variance(seed: int) -> None:
    features, valid = ragged(seed)
    assert share(features, valid) == pytest.approx(plain_share(features, valid), abs=1e-5)
    assert share(features) == pytest.approx(plain_share(features, torch.ones_like(valid)), abs=1e-5)


def test_position_sums_add_up_over_batches_of_any_length() -> None:
    features, valid = ragged(0, items=8, length=9)
    valid[:3, 5:] = False
    first = position_sums(features[:3, :5], ~valid[:3, :5], positions=20)
    second = position_sums(features[3:], ~valid[3:], positions=20)
    assert position_share(first + second) == pytest.approx(share(features, valid), abs=1e-6)
    assert position_sums(features, positions=4).shape == (4, 4 + 2)


def test_position_share_tells_content_from_position() -> None:
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(32, 50, 16, generator=generator)
    position = torch.randn(50, 16, generator=generator).expand(32, -1, -1)
    item = 5 * torch.randn(32, 1, 16, generator=generator)  # constant in time: centred away
    assert abs(share(content + item)) < 0.01
    assert share(position + 0.03 * content + item) > 0.99
    assert share(position + content) == pytest.approx(0.5, abs=0.03)
    variances = [variance(variance_sums(features)) for features in (content, position + 0.03 * content)]
    assert min(variances) > 0.8  # why the published monitors miss it


def test_share_of_single_items_and_of_constant_features_is_unknown() -> None:
    assert math.isnan(share(torch.randn(1, 5, 3)))
    assert math.isnan(share(torch.full((4, 5, 3), 7.1)))
    assert math.isnan(share(7.1 + 1e-5 * torch.randn(4, 5, 3)))


HEALTHY = {"target_var": 0.5, "pred_var": 0.3, "local_var": 0.4, "position_share": 0.1}


@pytest.mark.parametrize(
    ("change", "update", "named"),
    [
        ({}, 9000, None),
        ({"target_var": 0.09}, 9000, "target_var"),
        ({"pred_var": 0.005}, 9000, "pred_var"),
        ({"pred_var": 0.005}, 5000, None),
        ({"local_var": 0.004}, 10, "local_var"),
        ({"position_share": 0.99}, 10, "position_share"),
        (dict.fromkeys(HEALTHY, math.nan), 9000, None),
    ],
)
def test_findings_name_what_collapsed(change: dict[str, float], update: int, named: str | None) -> None:
    lines = findings(CollapseConfig(), HEALTHY | change, update, local_var_at_start=0.5)
    assert [line.split()[0] for line in lines] == ([named] if named else [])
    assert findings(CollapseConfig(), {}, update) == []


def test_checks_can_be_switched_off() -> None:
    off = CollapseConfig(min_target_var=0, min_pred_var=0, min_local_var=0, max_position_share=0)
    assert findings(off, dict.fromkeys(HEALTHY, 0.0) | {"position_share": 1.0}, 10**6, 1.0) == []

"""The collapse monitors: equal to their plain definitions, additive, and loud about both kinds of collapse."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data2vec.objectives.collapse import (
    CollapseLimits,
    deviation,
    moments,
    position_share,
    position_sums,
    share_of,
)


def plain_share(features: Tensor, valid: Tensor) -> float:
    """Mean product of two items over mean squared norm, position by position, item by item."""
    centred = [row[here] - row[here].mean(0) for row, here in zip(features.double(), valid, strict=True)]
    pairs = alone = 0.0
    for t in range(features.shape[1]):
        items = [row[int(here[:t].sum())] for row, here in zip(centred, valid, strict=True) if here[t]]
        if len(items) >= 2:
            weight = len(items) - 1
            products = [float(a @ b) for a, b in combinations(items, 2)]
            pairs += weight * sum(products) / len(products)
            alone += weight * sum(float(a @ a) for a in items) / len(items)
    return pairs / alone


def ragged(seed: int, items: int = 5, length: int = 9, width: int = 4) -> tuple[Tensor, Tensor]:
    """Random features with something in common at each position, and random right padding."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(length, width, generator=generator)
    features = common + torch.randn(items, length, width, generator=generator) + 3
    ends = torch.randint(2, length + 1, (items, 1), generator=generator)
    return features, torch.arange(length) < ends


@given(st.integers(0, 2**31), st.integers(2, 200), st.integers(1, 8), st.floats(-100, 100))
def test_deviation_is_the_published_formula(seed: int, tokens: int, width: int, shift: float) -> None:
    z = torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)) + shift
    expected = float((z.double().var(0, unbiased=True) + 1e-6).sqrt().mean())
    assert deviation(moments(z)) == pytest.approx(expected, rel=1e-9)


def test_moments_add_up_over_micro_batches_and_count_only_where_asked() -> None:
    z, where = torch.randn(6, 7, 3), torch.rand(6, 7) < 0.6
    z[~where] = math.nan
    whole = deviation(moments(z[where]))
    parts = sum(moments(rows, here) for rows, here in zip(z.split(2), where.split(2), strict=True))
    assert isinstance(parts, Tensor)
    assert deviation(parts) == pytest.approx(whole, rel=1e-12)
    assert math.isnan(deviation(moments(z[:1, 0])))
    assert deviation(moments(torch.full((50, 3), 7.0))) == pytest.approx(1e-3)


@given(st.integers(0, 2**31))
def test_position_share_is_the_plain_pairwise_mean(seed: int) -> None:
    features, valid = ragged(seed)
    assert position_share(features, valid) == pytest.approx(plain_share(features, valid), abs=1e-5)
    everywhere = torch.ones_like(valid)
    assert position_share(features) == pytest.approx(plain_share(features, everywhere), abs=1e-5)


def test_position_sums_add_up_over_batches_of_any_length() -> None:
    features, valid = ragged(0, items=8, length=9)
    whole = share_of(position_sums(features, valid, length=20))
    parts = [
        position_sums(features[:3, :5], valid[:3, :5] & (torch.arange(5) < 5), length=20),
        position_sums(features[3:], valid[3:], length=20),
    ]
    short = valid.clone()
    short[:3, 5:] = False
    assert share_of(parts[0] + parts[1]) == pytest.approx(position_share(features, short), abs=1e-6)
    assert whole == pytest.approx(position_share(features, valid), abs=1e-6)
    assert position_sums(features, valid, length=4).shape == (4, 2 + 4)


def test_position_share_tells_content_from_position() -> None:
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(32, 50, 16, generator=generator)
    position = torch.randn(50, 16, generator=generator).expand(32, -1, -1)
    item = 5 * torch.randn(32, 1, 16, generator=generator)  # constant in time: centred away
    assert abs(position_share(content + item)) < 0.01
    assert position_share(position + 0.03 * content + item) > 0.99
    assert position_share(position + content) == pytest.approx(0.5, abs=0.03)
    variances = [deviation(moments(features)) for features in (content, position + 0.03 * content)]
    assert min(variances) > 0.8  # why the published monitors miss it


def test_share_without_two_items_is_unknown() -> None:
    assert math.isnan(position_share(torch.randn(1, 5, 3)))
    assert math.isnan(position_share(torch.zeros(4, 5, 3)))


HEALTHY = {"target_var": 0.5, "pred_var": 0.3, "local_var": 0.4, "position_share": 0.1}


@pytest.mark.parametrize(
    ("change", "update", "named"),
    [
        ({}, 9000, None),
        ({"target_var": 0.09}, 9000, "target_var"),
        ({"pred_var": 0.005}, 9000, "pred_var"),
        ({"pred_var": 0.005}, 5000, None),
        ({"local_var": 0.002}, 10, "local_var"),
        ({"position_share": 0.99}, 10, "position_share"),
        ({"position_share": math.nan, "target_var": math.nan}, 9000, None),
    ],
)
def test_findings_name_what_collapsed(change: dict[str, float], update: int, named: str | None) -> None:
    lines = CollapseLimits().findings(HEALTHY | change, update)
    assert [line.split()[0] for line in lines] == ([named] if named else [])
    assert CollapseLimits().findings({}, update) == []


def test_checks_can_be_switched_off() -> None:
    off = CollapseLimits(min_target_var=0, min_pred_var=0, min_local_var=0, max_position_share=1)
    assert off.findings(dict.fromkeys(HEALTHY, 0.0) | {"position_share": 1.0}, 10**6) == []


def test_no_torch_needed_to_hold_the_limits() -> None:
    code = "import sys, data2vec.objectives.collapse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

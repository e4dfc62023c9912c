"""Sequence convolutions as products of shifted rows, and channels last, against torch's."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data2vec.nn import decoder
from data2vec.nn.conv import same_conv
from data2vec.nn.decoder import Decoder
from data2vec.nn.windows import convolve, convolve_at, products_are_fast


def with_gaps(x: Tensor, gap: int) -> tuple[Tensor, Tensor]:
    """(R, T, C) -> rows with gaps, and the rows that are gaps."""
    filled = F.pad(x, (0, 0, 0, gap), value=7.0)  # what stands in a gap must not matter
    quiet = torch.zeros(filled.shape[:2], dtype=torch.bool)
    quiet[:, x.shape[1] :] = True
    return filled.flatten(0, 1), quiet.flatten().nonzero()[:, 0]


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 10), st.data())
def test_products_equal_conv1d_with_gradients(count: int, tokens: int, kernel: int, data: st.DataObject) -> None:
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True}
    x = torch.randn(count, tokens, 5, **options)
    weight, bias = torch.randn(3, 5, kernel, **options), torch.randn(3, **options)
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2).transpose(1, 2)[:, :tokens]
    rows, silent = with_gaps(x, kernel // 2)
    ours = convolve(rows.clone(), weight, bias, silent).view(count, -1, 3)[:, :tokens]
    torch.testing.assert_close(ours, expected)
    chosen = data.draw(st.lists(st.integers(0, count * tokens - 1), max_size=9, unique=True))
    wanted = torch.tensor(chosen, dtype=torch.long)
    placed = wanted + wanted // tokens * (kernel // 2)
    some = convolve_at(rows, weight, bias, silent, placed)
    torch.testing.assert_close(some, expected.flatten(0, 1)[wanted])
    upstream = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (x, weight, bias), upstream, retain_graph=True)
    for mine, other in zip(torch.autograd.grad(ours, (x, weight, bias), upstream), theirs, strict=True):
        torch.testing.assert_close(mine, other)
    theirs = torch.autograd.grad(expected.flatten(0, 1)[wanted], (x, weight, bias), upstream.flatten(0, 1)[wanted])
    mine_some = torch.autograd.grad(some, (x, weight, bias), upstream.flatten(0, 1)[wanted])
    for mine, other in zip(mine_some, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("kernel", [1, 2, 5, 8])
def test_gradients_of_used_rows_only(kernel: int) -> None:
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    weight, bias = torch.randn(6, 4, kernel, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    rows, silent = with_gaps(x, kernel // 2)
    used = torch.tensor([0, 3, 6])
    found = []
    for given_rows in (None, used):
        leaf = rows.clone().requires_grad_()
        out = convolve(leaf.clone(), weight, bias, silent, given_rows)
        upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        found.append(torch.autograd.grad(out, leaf, upstream.index_fill(0, silent, 0.0))[0])
    torch.testing.assert_close(found[1][used], found[0][used])
    others = torch.ones(len(rows), dtype=torch.bool).index_fill(0, used, False)
    assert bool((found[1][others] == 0).all())


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 4, 19])
def test_same_conv_equals_conv1d(groups: int, kernel: int) -> None:
    x, weight, bias = torch.randn(2, 11, 8), torch.randn(12, 8 // groups, kernel), torch.randn(12)
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2, groups=groups)[..., :11]
    torch.testing.assert_close(same_conv(x, weight, bias, groups), expected.transpose(1, 2), rtol=1e-4, atol=1e-5)
    transposed = x.transpose(0, 1).contiguous().transpose(0, 1)  # another layout in memory
    torch.testing.assert_close(same_conv(transposed, weight, bias, groups), same_conv(x, weight, bias, groups))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 3), st.booleans(), st.booleans())
def test_both_ways_through_a_decoder(
    count: int, tokens: int, kernel: int, layers: int, residual: bool, padded: bool
) -> None:
    torch.manual_seed(0)
    shape = {"channels": 6, "kernel": kernel, "layers": layers, "groups": 1, "residual": residual}
    model = Decoder(6, **shape, projection_layers=2)
    mask = torch.rand(count, tokens) < 0.5
    padding = torch.arange(tokens)[None] >= torch.randint(1, tokens + 1, (count, 1)) if padded else None
    valid = torch.ones_like(mask) if padding is None else ~padding
    wanted, seen = (mask & valid).flatten().nonzero()[:, 0], (~mask & valid).flatten().nonzero()[:, 0]
    results = []
    for fast in (True, False):
        x = torch.linspace(-1, 1, count * tokens * 6).view(count, tokens, 6).requires_grad_()
        with mock.patch.object(decoder, "products_are_fast", return_value=fast):
            out = model(x, wanted, given=seen, padding_mask=padding)
        grads = torch.autograd.grad(out.square().sum(), [x, *model.parameters()])
        results.append([out, grads[0].flatten(0, 1)[seen], *grads[1:]])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_products_are_for_single_precision() -> None:
    assert not products_are_fast(torch.zeros(1, dtype=torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert not products_are_fast(torch.zeros(1))

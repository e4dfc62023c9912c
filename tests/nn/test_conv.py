"""The shifted matrix products against torch's convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from data2vec.nn.conv import strided_conv


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(6, 20),
    st.booleans(),
)
def test_equals_conv1d_with_gradients(
    batch: int, source: int, target: int, kernel: int, stride: int, rows: int, with_bias: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, rows * stride, source, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(target, source, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(target, dtype=torch.float64) if with_bias else None
    if kernel > rows * stride:
        return
    expected = F.conv1d(x.transpose(1, 2), weight, bias, stride).transpose(1, 2)
    exact = expected.shape[1]
    ours = strided_conv(x, weight, bias, stride)
    assert ours.shape == (batch, rows, target)
    torch.testing.assert_close(ours[:, :exact], expected)
    upstream = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (x, weight), upstream)
    mine = torch.autograd.grad(ours[:, :exact], (x, weight), upstream)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_follows_autocast() -> None:
    x, weight = torch.randn(2, 40, 32), torch.randn(16, 32, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = strided_conv(x, weight, None, 2)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    expected = F.conv1d(x.transpose(1, 2), weight, None, 2).transpose(1, 2)
    assert float((y[:, :19].float() - expected).abs().max()) < 0.3


@pytest.mark.parametrize("width", [1, 80])
def test_narrow_and_wide_rows_take_both_paths(width: int) -> None:
    x, weight = torch.randn(2, 30, width), torch.randn(8, width, 10)
    expected = F.conv1d(x.transpose(1, 2), weight, None, 5).transpose(1, 2)
    torch.testing.assert_close(strided_conv(x, weight, None, 5)[:, : expected.shape[1]], expected, atol=1e-4, rtol=1e-4)

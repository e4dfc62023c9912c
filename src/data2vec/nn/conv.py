"""Strided convolution over frames as matrix products, without an im2col copy.

With channels last, ``stride`` neighbouring frames are one contiguous row of ``stride * C`` numbers. A kernel of k
frames is then ``ceil(k / stride)`` matrix products on the same memory, shifted by whole rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NARROW = (
    64  # rows below this width are joined into one product: a product with a tiny inner size wastes the multipliers
)


def strided_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """``conv1d`` on frames with channels last, keeping one output row for each ``stride`` input frames.

    Args:
        x: (B, R * stride, C) contiguous.
        weight: (O, C, k), as `torch.nn.Conv1d` stores it.
        bias: (O,) or None.
        stride: frames a step.

    Returns:
        (B, R, O). Row t is exact while ``t * stride + k <= R * stride``; the rows after it, at most ``ceil(k / stride)
        - 1``, mix in the next item's frames and must be ignored.
    """
    batch, frames, channels = x.shape
    assert frames % stride == 0
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    taps = -(-weight.shape[-1] // stride)
    rows = x.reshape(batch * frames // stride, stride * channels)
    matrix = F.pad(weight, (0, taps * stride - weight.shape[-1])).transpose(1, 2)  # (O, taps * stride, C)
    matrix = matrix.reshape(weight.shape[0], taps, stride * channels).transpose(0, 1)  # (taps, O, stride * C)
    if taps > 1 and stride * channels < NARROW:
        rows = torch.cat([_shift(rows, tap) for tap in range(taps)], dim=1)
        matrix = matrix.transpose(0, 1).reshape(1, weight.shape[0], -1)
    out: Tensor = _ShiftedProducts.apply(rows, matrix)  # type: ignore[no-untyped-call]
    if bias is not None:
        out = out + bias
    return out.view(batch, frames // stride, -1)


def _shift(rows: Tensor, by: int) -> Tensor:
    return rows if by == 0 else F.pad(rows[by:], (0, 0, 0, by))


class _ShiftedProducts(torch.autograd.Function):
    """``out[n] = sum_j matrix[j] @ rows[n + j]`` without a copy of `rows`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor) -> Tensor:
        """`rows` (N, I), `matrix` (taps, O, I) -> (N, O)."""
        ctx.save_for_backward(rows, matrix)
        with torch.autocast(rows.device.type, enabled=False):
            out = rows @ matrix[0].t()
            for tap in range(1, len(matrix)):
                out[:-tap].addmm_(rows[tap:], matrix[tap].t())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients with respect to `rows` and `matrix`."""
        rows, matrix = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_rows = grad_matrix = None
        with torch.autocast(rows.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_rows = grad @ matrix[0]
                for tap in range(1, len(matrix)):
                    grad_rows[tap:].addmm_(grad[:-tap], matrix[tap])
            if ctx.needs_input_grad[1]:
                count = len(matrix)
                parts = [grad[: len(grad) - tap].t() @ rows[tap:] for tap in range(count)]
                grad_matrix = torch.stack(parts)
        return grad_rows, grad_matrix

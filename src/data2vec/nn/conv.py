"""Convolutions over frames, channels last.

Strided, as matrix products without an im2col copy: ``stride`` neighbouring frames are one contiguous row of
``stride * C`` numbers, so a kernel of k frames is ``ceil(k / stride)`` matrix products on the same memory, shifted by
whole rows. Of stride 1, as a 2-d convolution on a view, or (`nn.decoder`) as k shifted products.
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
    rows = x.reshape(batch * frames // stride, stride * channels)
    matrix = weight.transpose(1, 2).flatten(1)  # (O, k * C): what one output reads, in the order of memory
    taps = -(-matrix.shape[1] // rows.shape[1])
    if taps > 1 and stride * channels < NARROW:
        rows = torch.cat([_shift(rows, tap) for tap in range(taps)], dim=1)[:, : matrix.shape[1]]
    out: Tensor = _ShiftedProducts.apply(rows, matrix)  # type: ignore[no-untyped-call]
    if bias is not None:
        out = out + bias
    return out.view(batch, frames // stride, -1)


def _shift(rows: Tensor, by: int) -> Tensor:
    return rows if by == 0 else F.pad(rows[by:], (0, 0, 0, by))


class _ShiftedProducts(torch.autograd.Function):
    """``out[n] = matrix @ [rows[n], rows[n + 1], ...]`` without a copy of `rows`, as far as `matrix` reaches."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor) -> Tensor:
        """`rows` (N, I), `matrix` (O, J) -> (N, O); ``ceil(J / I)`` products, the last one on a part of each row."""
        ctx.save_for_backward(rows, matrix)
        count, width = rows.shape
        with torch.autocast(rows.device.type, enabled=False):
            out: Tensor = rows[:, : matrix.shape[1]] @ matrix[:, :width].t()
            for tap, part in enumerate(torch.split(matrix, width, dim=1)):
                if tap > 0:
                    out[: count - tap].addmm_(rows[tap:, : part.shape[1]], part.t())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients with respect to `rows` and `matrix`."""
        rows, matrix = ctx.saved_tensors
        count, width = rows.shape
        grad = grads[0].contiguous()
        grad_rows = grad_matrix = None
        with torch.autocast(rows.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_rows = grad @ F.pad(matrix[:, :width], (0, max(0, width - matrix.shape[1])))
                for tap, part in enumerate(torch.split(matrix, width, dim=1)):
                    if tap > 0:
                        grad_rows[tap:, : part.shape[1]].addmm_(grad[: count - tap], part)
            if ctx.needs_input_grad[1]:
                grad_matrix = torch.empty_like(matrix)
                for tap, part in enumerate(torch.split(grad_matrix, width, dim=1)):
                    _transposed_product(grad[: count - tap], rows[tap:, : part.shape[1]], part)
        return grad_rows, grad_matrix


def _transposed_product(grad: Tensor, rows: Tensor, out: Tensor) -> None:
    """``out = grad.T @ rows``; MKL takes ten times as long for few columns as for few rows."""
    if rows.shape[1] < NARROW:
        out.copy_((rows.t() @ grad).t())
    else:
        torch.mm(grad.t(), rows, out=out)


def same_conv(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """``conv1d`` of stride 1 with as many outputs as inputs; an even kernel drops its last output.

    A grouped one runs as a 2-d convolution on a channels-last view: oneDNN is twice as fast there as on a transposed
    copy. An ungrouped one is faster the other way round.

    Args:
        x: (B, T, C).
        weight: (O, C / groups, k).
        bias: (O,) or None.
        groups: of channels.

    Returns:
        (B, T, O).
    """
    frames, pad = x.shape[1], weight.shape[-1] // 2
    if groups == 1:
        return F.conv1d(x.transpose(1, 2), weight, bias, padding=pad).transpose(1, 2)[:, :frames]
    image = x.contiguous().transpose(1, 2).unsqueeze(2)  # (B, C, 1, T) with the strides of channels_last
    out = F.conv2d(image, weight.unsqueeze(2), bias, padding=(0, pad), groups=groups)
    return out.squeeze(2).transpose(1, 2)[:, :frames]

"""Convolution over many short sequences as matrix products, without an im2col copy of the whole.

All sequences lie in one (N, C) array, each followed by a gap of zero rows as wide as half a kernel. Then a kernel of k
taps is k matrix products on shifted views of that array, at the speed of the largest matrix product. Where only some
rows are wanted, their windows are gathered instead, and nothing is computed for the others.

Shapes: N rows, gaps included; C channels in, O out; k taps; W wanted rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def products_are_fast(x: Tensor) -> bool:
    """Whether shifted products beat the library's convolution for `x`.

    In fp32 on a CPU they do, except with AVX-512, where oneDNN's convolutions use it and MKL's products on AMD do not.
    Lower precision would round after every tap.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return not torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def convolve(rows: Tensor, weight: Tensor, bias: Tensor, silent: Tensor, used: Tensor | None = None) -> Tensor:
    """Convolution of stride 1 at every row.

    Args:
        rows: (N, C) sequences and gaps. Rows `silent` are set to zero in place, so nothing before may need them.
        weight: (O, C, k), as `torch.nn.Conv1d` stores it.
        bias: (O,).
        silent: (S,) rows of gaps and padding.
        used: (U,) the only rows whose gradient anybody reads; None: all.

    Returns:
        (N, O); what it holds at silent rows is to be ignored.
    """
    out: Tensor = _ShiftedConv.apply(rows, weight.permute(2, 0, 1).contiguous(), bias, silent, used)  # type: ignore[no-untyped-call]
    return out


def convolve_at(rows: Tensor, weight: Tensor, bias: Tensor, silent: Tensor, wanted: Tensor) -> Tensor:
    """The same at rows `wanted` (W,) only -> (W, O)."""
    taps = weight.shape[-1]
    columns = _windows(rows.index_fill(0, silent, 0.0), wanted, taps, -(taps // 2))
    return torch.addmm(bias, columns, weight.transpose(1, 2).flatten(1).t())


def _windows(rows: Tensor, centres: Tensor, taps: int, first: int) -> Tensor:
    """(W, taps * C): each centre's rows side by side, from `first` before or after it on."""
    index = centres[:, None] + torch.arange(first, first + taps, device=rows.device)
    # The first sequence has no gap before it: its windows read the last gap, which is zero too.
    return rows.index_select(0, (index % len(rows)).flatten()).view(len(centres), taps * rows.shape[1])


class _ShiftedConv(torch.autograd.Function):
    """``out[n] = bias + sum_j matrix[j] @ rows[n + j - k // 2]``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, bias: Tensor, silent: Tensor, used: Tensor | None) -> Tensor:
        """`rows` (N, C), `matrix` (k, O, C), `bias` (O,) -> (N, O)."""
        rows.index_fill_(0, silent, 0.0)
        ctx.save_for_backward(rows, matrix, silent)
        ctx.used = used
        middle = len(matrix) // 2
        out = torch.addmm(bias, rows, matrix[middle].t())
        for target, source, tap in _shifts(len(rows), len(matrix)):
            out[target].addmm_(rows[source], matrix[tap].t())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows, matrix and bias; those of `used` rows only, where given."""
        rows, matrix, silent = ctx.saved_tensors
        grad = grads[0].contiguous().index_fill(0, silent, 0.0)
        middle = len(matrix) // 2
        grad_matrix = torch.empty_like(matrix)
        torch.mm(grad.t(), rows, out=grad_matrix[middle])
        for target, source, tap in _shifts(len(rows), len(matrix)):
            torch.mm(grad[target].t(), rows[source], out=grad_matrix[tap])
        grad_rows = None
        if ctx.needs_input_grad[0] and ctx.used is not None:
            columns = _windows(grad, ctx.used, len(matrix), middle + 1 - len(matrix))
            grad_rows = torch.zeros_like(rows)
            grad_rows.index_copy_(0, ctx.used, columns @ matrix.flip(0).flatten(0, 1))
        elif ctx.needs_input_grad[0]:
            grad_rows = grad @ matrix[middle]
            for target, source, tap in _shifts(len(rows), len(matrix)):
                grad_rows[source].addmm_(grad[target], matrix[tap])
            grad_rows.index_fill_(0, silent, 0.0)
        return grad_rows, grad_matrix, grad.sum(0), None, None


def _shifts(rows: int, taps: int) -> list[tuple[slice, slice, int]]:
    """(rows written, rows read, tap) of every tap but the middle one."""
    shifts = []
    for tap in range(taps):
        by = tap - taps // 2
        if by and abs(by) < rows:
            low, high = max(0, -by), rows - max(0, by)
            shifts.append((slice(low, high), slice(low + by, high + by), tap))
    return shifts

"""ALiBi: attention falls off with distance, by a slope a head (arXiv 2108.12409; symmetric and scaled in data2vec 2).

Shapes: R rows, K tokens, H heads, T positions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def alibi_slopes(heads: int, device: torch.device | str | None = None) -> Tensor:
    """(H,) slopes, one a head (`get_slopes` of the ALiBi authors).

    ``2^(-8 i / n)`` for n heads where n is a power of two; else those of the power below, then every other slope of
    twice that power.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = _geometric(power, device)
    if power < heads:
        slopes = torch.cat([slopes, _geometric(2 * power, device)[::2][: heads - power]])
    return slopes


def _geometric(count: int, device: torch.device | str | None) -> Tensor:
    return torch.exp2(torch.arange(1, count + 1, device=device) * (-8.0 / count))


def distances(index: Tensor, columns: int | None = None) -> Tensor:
    """Distances between tokens of a row.

    Args:
        index: (R, K) positions.
        columns: None: ``|i - j|``; the width of a grid: Manhattan distance between row-major positions.

    Returns:
        (R, 1, K, K) float.
    """
    axes = (index,) if columns is None else (index.div(columns, rounding_mode="floor"), index % columns)
    parts = [(axis[:, None, :, None] - axis[:, None, None, :]).abs() for axis in axes]
    return sum(parts[1:], start=parts[0]).float()


def alibi(index: Tensor, scale: Tensor, heads: int, columns: int | None = None) -> Tensor:
    """``-slope * max(scale, 0) * distance``, to be added to the attention scores.

    Args:
        index: (R, K) positions of the tokens at hand.
        scale: (H or 1, 1, 1), learned.
        heads: H.
        columns: see `distances`.

    Returns:
        (R, H, K, K).
    """
    slopes = alibi_slopes(heads, index.device)[:, None, None] * scale.clamp(min=0)
    return -slopes * distances(index, columns)

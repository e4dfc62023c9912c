"""Is the run collapsing? Statistics as additive sums, so that micro-batches and ranks add up.

Variance (as published) sees constant features. It does not see features that depend on the position only, nor a local encoder that has
died while the positions keep the variance up; `position_share` and the local features' variance do.

Shapes: N tokens, B batch, T positions, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def variance_sums(z: Tensor) -> Tensor:
    """(N, D) -> (3, D) fp64: count, sum and sum of squares; they add over batches and ranks."""
    z = z.detach().flatten(0, -2).double()
    return torch.stack(
        [torch.full_like(z[0] if len(z) else z.new_zeros(z.shape[-1]), len(z)), z.sum(0), z.square().sum(0)]
    )


def variance(sums: Tensor) -> float:
    """``mean_d sqrt(Var_tokens(z_d) + 1e-6)``, unbiased (fairseq `data2vec_audio.py`, ``compute_var``)."""
    count, total, squares = sums.double()
    var = (squares - total.square() / count.clamp(min=1)) / (count - 1).clamp(min=1)
    return float((var.clamp(min=0) + 1e-6).sqrt().mean())


@torch.no_grad()
def position_sums(features: Tensor, padding_mask: Tensor | None = None, positions: int = 512) -> Tensor:
    """Sums of the features, centred over time within each item, at each position.

    Args:
        features: (B, T, D).
        padding_mask: (B, T) bool, True = padding.
        positions: only the first so many positions are watched, so that sums of different lengths add up.

    Returns:
        (positions, D + 2) fp64: per position the sum over items (D), the sum of squares over items and dimensions, the number of items.
    """
    x = features.detach()[:, :positions].float()
    valid = torch.ones(x.shape[:2], device=x.device) if padding_mask is None else (~padding_mask[:, :positions]).float()
    valid = valid[..., None]
    centred = (x - (x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)) * valid
    sums = torch.cat([centred.sum(0), centred.square().sum((0, 2))[:, None], valid.sum(0)], dim=1).double()
    return torch.nn.functional.pad(sums, (0, 0, 0, positions - len(sums)))


def position_share(sums: Tensor) -> float:
    """Share of the time-centred variance that is common to all items at a position: near 0 when healthy, 1 when only position is left.

    An unbiased split as in a one-way analysis of variance: ``1 - within / total`` with the variance within a position over n - 1 items.
    Positions seen once say nothing and are left out; nan when none is left.
    """
    total, squares, count = sums[:, :-2].double(), sums[:, -2].double(), sums[:, -1].double()
    seen = count > 1
    if not bool(seen.any()):
        return float("nan")
    total, squares, count = total[seen], squares[seen], count[seen]
    within = (squares - total.square().sum(1) / count) * count / (count - 1)
    return float(1 - within.sum() / squares.sum().clamp(min=1e-12))

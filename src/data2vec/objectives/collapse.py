"""Is the run collapsing? Statistics as additive sums, so that micro-batches and ranks add up.

Variance (as published) sees constant features. It does not see features that depend on the position only, nor a local
encoder that has died while the positions keep the variance up; `position_share` and the local features' variance do.

Shapes: N tokens, B batch, T positions, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from data2vec.objectives.config import CollapseConfig


@torch.no_grad()
def variance_sums(z: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """(..., D) -> (3, D) fp64: count, sum and sum of squares; they add over batches and ranks.

    Args:
        z: features.
        padding_mask: (...) bool, True = padding, which is left out.
    """
    z = z.detach().flatten(0, -2).double()
    if padding_mask is not None:
        valid = ~padding_mask.flatten()
        z = z.masked_fill(~valid[:, None], 0.0)
        return torch.stack([valid.sum().to(z).expand(z.shape[-1]), z.sum(0), z.square().sum(0)])
    return torch.stack(
        [torch.full_like(z[0] if len(z) else z.new_zeros(z.shape[-1]), len(z)), z.sum(0), z.square().sum(0)]
    )


def variance(sums: Tensor) -> float:
    """``mean_d sqrt(Var_tokens(z_d) + 1e-6)``, unbiased (fairseq `data2vec_audio.py`, ``compute_var``).

    nan for fewer than two tokens.
    """
    count, total, squares = sums.double()
    if count[0] < 2:
        return math.nan
    var = (squares - total.square() / count) / (count - 1)
    return float((var.clamp(min=0) + 1e-6).sqrt().mean())


@torch.no_grad()
def position_sums(features: Tensor, padding_mask: Tensor | None = None, positions: int = 512) -> Tensor:
    """Sums of the features, centred over time within each item, at each position.

    Args:
        features: (B, T, D).
        padding_mask: (B, T) bool, True = padding.
        positions: only the first so many positions are watched, so that sums of different lengths add up.

    Returns:
        (positions, D + 2) fp64: per position the sum over items (D), the sum of squares over items and dimensions, the
        number of items.
    """
    x = features.detach()[:, :positions].float()
    valid = torch.ones(x.shape[:2], device=x.device) if padding_mask is None else (~padding_mask[:, :positions]).float()
    valid = valid[..., None]
    centred = (x - (x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)) * valid
    sums = torch.cat([centred.sum(0), centred.square().sum((0, 2))[:, None], valid.sum(0)], dim=1).double()
    return torch.nn.functional.pad(sums, (0, 0, 0, positions - len(sums)))


def position_share(sums: Tensor) -> float:
    """Share of the time-centred variance that is common to all items at a position: 1 when only position is left.

    An unbiased split as in a one-way analysis of variance: ``1 - within / total`` with the variance within a position
    over n - 1 items, so independent items give 0 on average, at times a little less. Positions seen once say nothing
    and are left out; nan when none is left, and for features without variance (below the 1e-6 that `variance` adds).
    """
    total, squares, count = sums[:, :-2].double(), sums[:, -2].double(), sums[:, -1].double()
    seen = count > 1
    total, squares, count = total[seen], squares[seen], count[seen]
    if not float(squares.sum()) > 1e-6 * float(count.sum()) * total.shape[1]:
        return math.nan
    within = (squares - total.square().sum(1) / count) * count / (count - 1)
    return float(1 - within.sum() / squares.sum())


def findings(
    limits: CollapseConfig, statistics: Mapping[str, float], update: int, local_var_at_start: float = math.nan
) -> list[str]:
    """What has collapsed, one line each; empty for a healthy run. Absent and nan statistics are passed over.

    Only `target_var` and `pred_var` wait for `limits.after_update`, as published: healthy predictions start near 0. The
    others have nothing to wait for, and positional collapse is complete within a few hundred updates.

    Args:
        limits: of the run; a limit of 0 switches its check off.
        statistics: any of `target_var`, `pred_var`, `local_var`, `position_share`.
        update: the number of the update they were taken at.
        local_var_at_start: `local_var` when the run began.
    """
    lows = {"local_var": limits.min_local_var * local_var_at_start}
    if update > limits.after_update:
        lows |= {"target_var": limits.min_target_var, "pred_var": limits.min_pred_var}
    lines = [
        f"{name} {statistics[name]:.3g} is below {low:.3g}: features are nearly constant"
        for name, low in lows.items()
        if statistics.get(name, math.nan) < low
    ]
    share, high = statistics.get("position_share", math.nan), limits.max_position_share
    if high and share > high:
        lines.append(f"position_share {share:.3g} is above {high:.3g}: features depend on the position only")
    return lines

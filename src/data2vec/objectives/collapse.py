"""How a run's representations are seen to collapse, from additive sums: micro-batches and ranks add up exactly.

Two ways to collapse, and what shows each. Features become constant: the published deviations of targets and predictions
(algorithms 1.5) show it for the encoder, the deviation of local features for the front end (P14). Features become a
function of the position alone: every deviation stays healthy and the loss falls to zero, only the position share rises
(untrained .02-.07, collapsed above .95).

Shapes: N tokens, B items, T positions, D features. This module imports no torch, so that a config may hold its limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def moments(z: Tensor, where: Tensor | None = None) -> Tensor:
    """Additive sums of tokens' features, for `deviation`: the sums of two batches are those of both together.

    Args:
        z: (..., D) features; no gradient is kept.
        where: (...) bool, the tokens to count; all where None.

    Returns:
        (3, D) rows: count, sum, sum of squares; fp64 (a variance is a difference of large sums), fp32 on mps.
    """
    z = z.detach() if where is None else z.detach().masked_fill(~where[..., None], 0)  # no indexing: it would wait
    z = z.flatten(0, -2)
    z = z.float() if z.device.type == "mps" else z.double()
    sums = z.new_empty(3, z.shape[-1])
    sums[0] = z.shape[0] if where is None else where.sum()
    sums[1] = z.sum(0)
    sums[2] = z.square().sum(0)
    return sums


def deviation(sums: Tensor) -> float:
    """The published `target_var` and `pred_var`: mean over features of sqrt(variance over tokens + 1e-6).

    fairseq `compute_var`: unbiased, all tokens of all ranks together. NaN for fewer than two tokens.

    Args:
        sums: (3, D) from `moments`, added up.
    """
    count, total, squares = sums
    if count[0] < 2:
        return math.nan
    variance = (squares - total.square() / count) / (count - 1)
    return float((variance.clamp(min=0) + 1e-6).sqrt().mean())


def position_sums(features: Tensor, valid: Tensor | None = None, *, length: int | None = None) -> Tensor:
    """Additive sums for `share_of`: at each position, of features less their mean over time in the same item.

    Args:
        features: (B, T, D); no gradient is kept.
        valid: (B, T) bool, False = padding; all valid where None.
        length: positions kept in the sums, so that batches of any T add up; T where None. Later positions are left out.

    Returns:
        (length, 2 + D) fp32: at each position the count of items, the sum of squared norms, the sum of features.
    """
    features = features.detach().float()
    if valid is None:
        here = features.new_ones(*features.shape[:2], 1)
    else:
        here = valid.float()[..., None]
        features = features.masked_fill(~valid[..., None], 0)
    mean = features.sum(1, keepdim=True) / here.sum(1, keepdim=True).clamp(min=1)
    centred = ((features - mean) * here)[:, :length]
    sums = features.new_zeros(length if length is not None else features.shape[1], 2 + features.shape[2])
    kept = sums[: centred.shape[1]]
    kept[:, 0] = here[:, :length, 0].sum(0)
    kept[:, 1] = centred.square().sum((0, 2))
    kept[:, 2:] = centred.sum(0)
    return sums


def share_of(sums: Tensor) -> float:
    """The position share of added-up `position_sums`.

    At one position, the mean product of two different items' features over the mean squared norm; positions are
    weighted by their items less one. So it is unbiased: 1 if all items agree everywhere, 0 on average if they are
    independent, and a little below 0 by chance. NaN if no position was seen twice or nothing varies.
    """
    sums = sums[sums[:, 0] >= 2]
    if sums.device.type != "mps":
        sums = sums.double()
    count, squares, total = sums[:, 0], sums[:, 1], sums[:, 2:]
    pairs = (total.square().sum(1) - squares) / count
    alone = squares * (count - 1) / count
    return float(pairs.sum() / alone.sum())


def position_share(features: Tensor, valid: Tensor | None = None) -> float:
    """Share of the time-centred variance of features that all items have in common at one position.

    High values alone are no verdict: healthy runs reached .5 (images) and .84 (text).

    Args:
        features: (B, T, D).
        valid: (B, T) bool, False = padding.
    """
    return share_of(position_sums(features, valid))


@dataclass(frozen=True)
class CollapseLimits:
    """Where statistics of a run count as collapsed. 0, or 1 for the share, switches a check off.

    Attributes:
        min_target_var: least deviation of the targets (published: .1; data2vec 2 images: 0).
        min_pred_var: least deviation of the predictions (published: .01; data2vec 2 images: 0).
        min_local_var: least deviation of the local features, before masking.
        max_position_share: largest position share of the targets.
        after_update: targets and predictions are judged after this update (published: 5000), since healthy predictions
            start near 0; the others from the start.
    """

    min_target_var: float = 0.1
    min_pred_var: float = 0.01
    min_local_var: float = 0.01
    max_position_share: float = 0.9
    after_update: int = 5000

    def findings(self, statistics: Mapping[str, float], update: int) -> list[str]:
        """What has collapsed, one line each; empty for a healthy run. Absent and NaN statistics are passed over.

        Args:
            statistics: any of `target_var`, `pred_var`, `local_var`, `position_share`.
            update: the number of the update they were taken at.
        """
        late = update > self.after_update
        lows = {"local_var": self.min_local_var}
        if late:
            lows |= {"target_var": self.min_target_var, "pred_var": self.min_pred_var}
        lines = [
            f"{name} {statistics[name]:.3g} is below {low:g}: features are nearly constant"
            for name, low in lows.items()
            if statistics.get(name, math.nan) < low
        ]
        share = statistics.get("position_share", math.nan)
        if share > self.max_position_share:
            lines.append(
                f"position_share {share:.3g} is above {self.max_position_share:g}: features depend on the position only"
            )
        return lines

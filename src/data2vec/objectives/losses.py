"""The regression loss. Shapes: N masked tokens, D width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def regression_loss(pred: Tensor, target: Tensor, *, beta: float, scale: float) -> Tensor:
    """Loss of each token: smooth L1 or squared error, summed over dimensions, times `scale`.

    Paper, section 3.3, equation 2.

    Args:
        pred: (N, D).
        target: (N, D).
        beta: where smooth L1 turns from ``e^2 / (2 beta)`` to ``|e| - beta / 2``; 0 is the squared error ``e^2``.
        scale: factor.

    Returns:
        (N,) fp32.
    """
    pred, target = pred.float(), target.float()
    if beta > 0:
        loss = F.smooth_l1_loss(pred, target, reduction="none", beta=beta)
    else:
        loss = F.mse_loss(pred, target, reduction="none")
    return loss.sum(dim=-1) * scale


def resolve_scale(scale: float | str, width: int) -> float:
    """The factor that a configuration means for width D: a number, ``rsqrt`` or ``mean``."""
    if isinstance(scale, str):
        return width**-0.5 if scale == "rsqrt" else 1.0 / width
    return scale

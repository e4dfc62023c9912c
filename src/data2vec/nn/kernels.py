"""Two attention kernels with conditions: flash and flex. What they cannot do is said before they are called.

Shapes: B batch, H heads, T queries, S keys, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.errors import UserError


def attend_flash(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float, causal: bool
) -> Tensor:
    """Torch's flash kernel and no other (arXiv 2307.08691). Arguments as of `data2vec.nn.attention.attend`."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    _refuse(flash_obstacle(query, bias, dropout), "flash")
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, is_causal=causal)


def flash_obstacle(query: Tensor, bias: Tensor | None, dropout: float) -> str | None:
    """Why the flash kernel cannot run, in a few words; None if it can."""
    learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if query.device.type == "cpu":
        if dropout > 0:
            return "on a CPU it has no dropout: set attention dropout to 0"
        return "on a CPU it cannot train a bias (relative positions)" if learned else None
    if bias is not None:
        return f"on {query.device.type} it adds no bias: neither padding nor relative positions"
    if query.dtype not in (torch.float16, torch.bfloat16):
        return f"on {query.device.type} it needs float16 or bfloat16, not {query.dtype}".replace("torch.", "")
    return None


def attend_flex(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float, causal: bool) -> Tensor:
    """FlexAttention (torch): the bias is added inside the kernel, and never written out."""
    _refuse(flex_obstacle(query, bias, dropout), "flex")
    shift = key.shape[-2] - query.shape[-2]
    full = None if bias is None else bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])

    def modify(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        if full is not None:
            score = score + full[b, h, t, s]
        return torch.where(t + shift >= s, score, -math.inf) if causal else score

    out: Tensor = _flex(query.device.type)(query, key, value, score_mod=modify)
    return out


def flex_obstacle(query: Tensor, bias: Tensor | None, dropout: float) -> str | None:
    """Why flex attention cannot run, in a few words; None if it can."""
    if dropout > 0:
        return "it has no dropout: set attention dropout to 0"
    training = torch.is_grad_enabled() and (query.requires_grad or (bias is not None and bias.requires_grad))
    return "it has no backward pass on a CPU: run it under torch.no_grad()" if training and query.is_cpu else None


@lru_cache(maxsize=2)
def _flex(device: str) -> Callable[..., Any]:
    """The kernel; only a compiled one is worth having on an accelerator."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = flex_attention
    compiled: Callable[..., Any] = kernel if device == "cpu" else torch.compile(kernel, dynamic=True)
    return compiled


def _refuse(obstacle: str | None, name: str) -> None:
    if obstacle is not None:
        raise UserError(f"attn_implementation={name!r} cannot run here: {obstacle}, or take 'sdpa'")

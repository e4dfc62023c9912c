"""Masks as additive attention biases, made once a forward pass, not once a layer."""

from __future__ import annotations

import torch
from torch import Tensor

from data2vec.errors import UserError


def padding_bias(padding_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(B, S) bool, True = padding, to a bias (B, 1, 1, S): 0 or the dtype's most negative number.

    Finite, so that a row of nothing but padding attends evenly instead of giving NaN.
    """
    if padding_mask is None:
        return None
    bias = torch.zeros(padding_mask.shape, dtype=dtype, device=padding_mask.device)
    return bias.masked_fill(padding_mask, torch.finfo(dtype).min)[:, None, None, :]


def causal_bias(queries: int, keys: int, like: Tensor) -> Tensor:
    """(queries, keys): query t sees keys up to ``t + keys - queries``; dtype and device of `like`."""
    bias = torch.full((queries, keys), torch.finfo(like.dtype).min / 2, dtype=like.dtype, device=like.device)
    return bias.triu(keys - queries + 1)


def expand_head_mask(head_mask: Tensor | None, layers: int) -> Tensor | None:
    """(heads,) or (layers, heads) -> (layers, 1, heads, 1, 1)."""
    if head_mask is None:
        return None
    if head_mask.dim() == 1:
        head_mask = head_mask.expand(layers, -1)
    if head_mask.dim() != 2 or head_mask.shape[0] != layers:
        raise UserError(
            f"head_mask must be (heads,) or (layers, heads) with {layers} layers, not {tuple(head_mask.shape)}"
        )
    return head_mask[:, None, :, None, None]

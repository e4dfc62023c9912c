"""Attention: one call for every kernel, and the module with its projections.

Shapes: B batch, H heads, T queries, S keys, D model width, d = D / H.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.nn.cache import LayerCache
from data2vec.nn.kernels import attend_flash, attend_flex
from data2vec.nn.masks import causal_bias

logger = logging.getLogger("data2vec")


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    implementation: str = "sdpa",
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (B, H, T, d).
        key: (B, H, S, d).
        value: (B, H, S, d).
        bias: added to the scaled scores, broadcastable to (B, H, T, S); padding is a very negative bias.
        dropout: probability on the attention weights; 0 outside training.
        causal: query t sees keys up to ``t + S - T``.
        implementation: ``eager``, ``sdpa``, ``flash`` or ``flex`` (see `data2vec.nn.kernels`).

    Returns:
        (B, H, T, d).

    Raises:
        UserError: the kernel cannot do this; the message says why.
    """
    if implementation == "eager":
        return attend_eager(query, key, value, bias=bias, dropout=dropout, causal=causal)[0]
    if implementation == "flex":
        return attend_flex(query, key, value, bias, dropout, causal)
    if causal and (bias is not None or query.shape[-2] != key.shape[-2]):
        future = causal_bias(query.shape[-2], key.shape[-2], query)
        bias, causal = future if bias is None else bias + future, False
    if implementation == "flash":
        return attend_flash(query, key, value, bias, dropout, causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, is_causal=causal)


def attend_eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    head_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same written out; also returns the weights (B, H, T, S).

    `head_mask`, broadcastable to the weights, multiplies them.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = scores + causal_bias(query.shape[-2], key.shape[-2], query)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    if head_mask is not None:
        weights = weights * head_mask
    return weights @ value, weights


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    Args:
        width: D.
        heads: H.
        dropout: on the attention weights.
        key_bias: BEiT's key projection has none.
        context_width: width of what cross-attention reads; None = self-attention.
        relative: ``relative_key`` or ``relative_key_query``: query- (and key-) dependent distance terms (transformers
            4.x).
        max_distance: positions that the distance table covers, for `relative`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        dropout: float = 0.0,
        key_bias: bool = True,
        context_width: int | None = None,
        relative: str | None = None,
        max_distance: int = 0,
        implementation: str = "sdpa",
    ) -> None:
        super().__init__()
        self.heads, self.head_width, self.dropout = heads, width // heads, dropout
        self.kept = list(range(heads))
        self.implementation = implementation
        self.relative = relative
        source = width if context_width is None else context_width
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(source, width, bias=key_bias)
        self.v_proj = nn.Linear(source, width)
        self.out_proj = nn.Linear(width, width)
        if relative is not None:
            self.distance = nn.Embedding(2 * max_distance - 1, self.head_width)

    def forward(
        self,
        x: Tensor,
        *,
        bias: Tensor | None = None,
        causal: bool = False,
        context: Tensor | None = None,
        cache: LayerCache | None = None,
        head_mask: Tensor | None = None,
        weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `x` (B, T, D) to itself, to the cache before it, or to `context` (B, S, context_width).

        Returns:
            (B, T, D) and, when `weights` is asked for, the weights (B, H, T, S).
        """
        bias, head_mask = self._of_kept(bias), self._of_kept(head_mask)
        query = self._split(self.q_proj(x))
        key, value = self._keys(x, context, cache)
        if self.relative is not None:
            distance = self._distance_bias(query, key)
            bias = distance if bias is None else bias + distance
        dropout = self.dropout if self.training else 0.0
        if weights or head_mask is not None:
            if self.implementation != "eager" and not torch.compiler.is_compiling():
                _say_eager(self.implementation)
            out, seen = attend_eager(query, key, value, bias=bias, dropout=dropout, causal=causal, head_mask=head_mask)
        else:
            out = attend(
                query, key, value, bias=bias, dropout=dropout, causal=causal, implementation=self.implementation
            )
            seen = None
        return self.out_proj(out.transpose(1, 2).flatten(2)), seen if weights else None

    def _keys(self, x: Tensor, context: Tensor | None, cache: LayerCache | None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, d); those of a context are computed once and then cached."""
        if context is not None and cache is not None and cache.filled:
            return cache.read()
        source = x if context is None else context
        key, value = self._split(self.k_proj(source)), self._split(self.v_proj(source))
        return (key, value) if cache is None else cache.append(key, value)

    def prune(self, heads: Iterable[int]) -> None:
        """Remove heads for good, by their original numbers; those already gone are passed over."""
        gone = set(heads)
        if not gone <= set(range(self.heads)) or gone >= set(self.kept):
            raise UserError(f"heads {sorted(gone)} cannot be pruned: of 0 to {self.heads - 1} one has to remain")
        places = [place for place, head in enumerate(self.kept) if head not in gone]
        if len(places) == len(self.kept):
            return
        width = self.head_width
        channels = torch.cat([torch.arange(place * width, (place + 1) * width, device="cpu") for place in places])
        self.q_proj, self.k_proj, self.v_proj = (
            _part(linear, channels, 0) for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        self.out_proj = _part(self.out_proj, channels, 1)
        self.kept = [self.kept[place] for place in places]

    def _of_kept(self, x: Tensor | None) -> Tensor | None:
        """The kept heads of something (., H, ...) that has all of them; something for all heads stays."""
        if x is None or len(self.kept) == self.heads or x.shape[1] != self.heads:
            return x
        return x[:, self.kept]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], len(self.kept), self.head_width).transpose(1, 2)

    def _distance_bias(self, query: Tensor, key: Tensor) -> Tensor:
        """``q . E[i - j + max - 1]`` (``+ k . E`` for relative_key_query), scaled as the scores (transformers 4.x)."""
        queries, keys = query.shape[-2], key.shape[-2]
        rows = torch.arange(keys - queries, keys, device=query.device)[:, None]
        offset = (self.distance.num_embeddings - 1) // 2
        table = self.distance(rows - torch.arange(keys, device=query.device)[None] + offset)
        bias = torch.einsum("bhtd,tsd->bhts", query, table)
        if self.relative == "relative_key_query":
            bias = bias + torch.einsum("bhsd,tsd->bhts", key, table)
        return bias / math.sqrt(self.head_width)


def _part(linear: nn.Linear, channels: Tensor, dim: int) -> nn.Linear:
    """Some outputs (dim 0, with their biases) or inputs (dim 1) of a linear map."""
    channels = channels.to(linear.weight.device)
    part = nn.Linear(1, 1, bias=linear.bias is not None)
    part.weight = nn.Parameter(linear.weight.detach().index_select(dim, channels), linear.weight.requires_grad)
    part.out_features, part.in_features = part.weight.shape
    if linear.bias is not None:
        bias = linear.bias.detach()
        kept = bias.index_select(0, channels) if dim == 0 else bias.clone()
        part.bias = nn.Parameter(kept, linear.bias.requires_grad)
    return part


@lru_cache(maxsize=8)
def _say_eager(implementation: str) -> None:
    """Once a process."""
    logger.warning(
        "attention weights and head_mask need the eager computation: %s is not used for them", implementation
    )

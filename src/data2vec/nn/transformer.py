"""The one Transformer: v1 and v2, student and teacher, speech, images and text all run these blocks.

Shapes: B batch, T tokens, D width, H heads. A block's *feed-forward output* is the output of its second linear, before
dropout, residual and norm (times its layer scale, where a block has one): the target that data2vec regresses for speech
and text (arXiv 2202.03555, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data2vec.nn.activations import activation
from data2vec.nn.attention import Attention
from data2vec.nn.cache import Cache, LayerCache

Bias = Tensor | Sequence[Tensor | None] | None


@dataclass(frozen=True)
class TransformerConfig:
    """Everything a stack of blocks needs to know.

    Attributes:
        width: D.
        heads: H.
        hidden: width of the feed-forward layer.
        pre_norm: norm before each branch (vision v1) instead of after the residual sum (everything else).
        eps: of the layer norms.
        dropout: on each branch's output.
        attention_dropout: on the attention weights.
        activation_dropout: on the feed-forward activations.
        drop_path: a branch is skipped per sample; rises linearly from 0 in the first block to this in the last.
        layerdrop: a whole block is skipped, in training.
        layer_scale: initial value of the learned per-channel factor of each branch; None = none.
        key_bias: whether the key projection has a bias (not in BEiT).
        context_width: width of what cross-attention reads; None = no cross-attention.
        relative: distance terms in the scores, see `Attention`.
        max_distance: see `Attention`.
        implementation: attention kernel.
    """

    width: int
    heads: int
    depth: int
    hidden: int
    activation: str | Callable[[Tensor], Tensor] = "gelu"
    pre_norm: bool = False
    eps: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    drop_path: float = 0.0
    layerdrop: float = 0.0
    layer_scale: float | None = None
    key_bias: bool = True
    context_width: int | None = None
    relative: str | None = None
    max_distance: int = 0
    implementation: str = "sdpa"


@dataclass
class BlockOutput:
    """One block's results; `attentions` and `cross_attentions` only where asked for."""

    output: Tensor
    ffn: Tensor
    attentions: Tensor | None = None
    cross_attentions: Tensor | None = None


@dataclass
class TransformerOutput:
    """A stack's results.

    Attributes:
        output: (B, T, D), the last block's output.
        blocks: each block's output, (B, T, D); where asked for.
        ffns: each block's feed-forward output, (B, T, D); where asked for.
        attentions: each block's weights, (B, H, T, S); where asked for.
        cross_attentions: the same for cross-attention.
    """

    output: Tensor
    blocks: list[Tensor] = field(default_factory=list)
    ffns: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    cross_attentions: list[Tensor] = field(default_factory=list)


class FeedForward(nn.Module):
    """``fc2(dropout(activation(fc1(x))))``."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)
        self.activation = activation(config.activation)
        self.dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = self.fc2(self.dropout(self.activation(self.fc1(x))))
        return out


class DropPath(nn.Module):
    """Skips a residual branch for a random share of the samples; the kept ones are scaled so that the mean stays."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if self.rate == 0.0 or not self.training:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) >= self.rate
        return branch * keep.to(branch.dtype) / max(1.0 - self.rate, 1e-6)


class Block(nn.Module):
    """Attention and feed-forward, each with norm, dropout, optional layer scale and stochastic depth."""

    def __init__(self, config: TransformerConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention = _attention(config, None)
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        if config.context_width is not None:
            self.cross_attention = _attention(config, config.context_width)
            self.cross_norm = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = FeedForward(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)
        scale = config.layer_scale
        self.scale1 = None if scale is None else nn.Parameter(torch.full((config.width,), scale))
        self.scale2 = None if scale is None else nn.Parameter(torch.full((config.width,), scale))

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        causal: bool = False,
        context: Tensor | None = None,
        context_bias: Tensor | None = None,
        cache: LayerCache | None = None,
        cross_cache: LayerCache | None = None,
        head_mask: Tensor | None = None,
        attentions: bool = False,
    ) -> BlockOutput:
        """(B, T, D) -> `BlockOutput`."""
        inner = self.norm1(x) if self.pre_norm else x
        attended, weights = self.attention(
            inner, bias=bias, causal=causal, cache=cache, head_mask=head_mask, weights=attentions
        )
        x = x + self._branch(_scaled(attended, self.scale1))
        x = x if self.pre_norm else self.norm1(x)
        cross = None
        if context is not None:
            inner = self.cross_norm(x) if self.pre_norm else x
            attended, cross = self.cross_attention(
                inner, bias=context_bias, context=context, cache=cross_cache, head_mask=head_mask, weights=attentions
            )
            x = x + self.dropout(attended)
            x = x if self.pre_norm else self.cross_norm(x)
        ffn = _scaled(self.mlp(self.norm2(x) if self.pre_norm else x), self.scale2)
        x = x + self._branch(ffn)
        return BlockOutput(x if self.pre_norm else self.norm2(x), ffn, weights, cross)

    def _branch(self, branch: Tensor) -> Tensor:
        dropped: Tensor = self.drop_path(self.dropout(branch))
        return dropped


def _scaled(branch: Tensor, scale: Tensor | None) -> Tensor:
    return branch if scale is None else scale * branch


def _attention(config: TransformerConfig, context_width: int | None) -> Attention:
    return Attention(
        config.width,
        config.heads,
        dropout=config.attention_dropout,
        key_bias=config.key_bias,
        context_width=context_width,
        relative=config.relative if context_width is None else None,
        max_distance=config.max_distance,
        implementation=config.implementation,
    )


class Transformer(nn.ModuleList):
    """A stack of blocks; their names are ``blocks.{i}`` where a model calls the stack `blocks`."""

    def __init__(self, config: TransformerConfig) -> None:
        rates = torch.linspace(0, config.drop_path, config.depth, dtype=torch.float64, device="cpu").tolist()
        super().__init__([Block(config, rate) for rate in rates])
        self.config = config
        self.gradient_checkpointing = False

    def forward(
        self,
        x: Tensor,
        bias: Bias = None,
        *,
        causal: bool = False,
        context: Tensor | None = None,
        context_bias: Tensor | None = None,
        cache: Cache | None = None,
        head_mask: Tensor | None = None,
        blocks: bool = False,
        ffns: bool = False,
        attentions: bool = False,
    ) -> TransformerOutput:
        """Run all blocks.

        Args:
            x: (B, T, D).
            bias: added to every block's scores, broadcastable to (B, H, T, S); or one a block.
            causal: hide the future.
            context: (B, S, context_width) for cross-attention.
            context_bias: (B, 1, 1, S) for cross-attention.
            cache: keys and values of earlier tokens, extended in place.
            head_mask: (depth, ...) multiplied into the attention weights.
            blocks: collect each block's output.
            ffns: collect each block's feed-forward output.
            attentions: collect the attention weights.
        """
        result = TransformerOutput(x)
        for index, block in enumerate(self):
            if self.training and self.config.layerdrop > 0 and float(torch.rand(())) < self.config.layerdrop:
                # A skipped block still counts: layers keep their index, whatever was dropped.
                done = BlockOutput(x, torch.zeros_like(x))
            else:
                options: dict[str, Any] = {
                    "causal": causal,
                    "context": context,
                    "context_bias": context_bias,
                    "cache": cache.attention[index] if cache is not None else None,
                    "cross_cache": cache.cross_attention[index] if cache is not None else None,
                    "head_mask": None if head_mask is None else head_mask[index],
                    "attentions": attentions,
                }
                layer_bias = bias if bias is None or isinstance(bias, Tensor) else bias[index]
                if self.gradient_checkpointing and self.training:
                    done = checkpoint(block, x, layer_bias, use_reentrant=False, **options)
                else:
                    done = block(x, layer_bias, **options)
            x = done.output
            if blocks:
                result.blocks.append(x)
            if ffns:
                result.ffns.append(done.ffn)
            if done.attentions is not None:
                result.attentions.append(done.attentions)
            if done.cross_attentions is not None:
                result.cross_attentions.append(done.cross_attentions)
        result.output = x
        return result

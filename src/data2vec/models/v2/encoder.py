"""What follows the front door in data2vec 2, for every modality.

Positions, dropping of hidden tokens, ALiBi, extra tokens, norm, blocks.

Shapes: B batch, M masks an item, R = B * M rows (row ``b * M + m`` is mask m of item b), T tokens, K visible tokens,
P extra tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.models.encoder import Encoder, LayerOutputs, Tokens
from data2vec.models.v2.config import Data2Vec2Config
from data2vec.nn.alibi import alibi
from data2vec.nn.positions import PositionalConvStack, sincos_positions
from data2vec.nn.transformer import Bias, Transformer, TransformerConfig, TransformerOutput


@dataclass
class Visible:
    """The tokens that the students of M masks see.

    Attributes:
        index: (R, K) long, their positions; all rows have K slots, and those past a row's last token hold any position.
        padding: (R, K) bool, True = such a slot, or a padded token: nothing attends to it; None when there is none.
        seen: (R, T) bool, True = visible: the same as a mask.
    """

    index: Tensor
    padding: Tensor | None
    seen: Tensor


def flat_rows(index: Tensor, items: int, tokens: int) -> Tensor:
    """Positions (R, S) -> (R * S,) rows in an (items, T, ...) tensor with its first two axes flattened.

    `items` is R, or B: then row r belongs to item ``r // M``.
    """
    owner = torch.arange(items, device=index.device).repeat_interleave(len(index) // items)
    return (owner[:, None] * tokens + index).flatten()


@runtime_checkable
class VisibleEncoder(Encoder, Protocol):
    """What data2vec 2 asks of a modality besides `Encoder`."""

    def contextualize_visible(self, tokens: Tokens, visible: Visible) -> LayerOutputs:
        """Run on visible tokens only: `output` (R, P + K, H), prefix P; no blocks and no ffns are collected."""
        ...


class ContextEncoder(nn.Module):
    """The v2 encoder behind a front door (fairseq `ModalitySpecificEncoder` and the blocks of `Data2VecMultiModel`).

    Args:
        transformer: the blocks, prenet included.
        prenet: how many of them belong to the modality: they give no targets.
        dropout: after the norm.
        norm: whether a norm stands in front of the blocks.
        extra_tokens: P.
        alibi_scales: (layers or 1, heads or 1) of the learned scales; None: no ALiBi.
        learn_alibi: whether they are trained.
        grid: of the fixed positions, for images.
        convolution: positional convolution, for speech.
        convolution_norm: whether a norm stands in front of it.
        zero_padding: zero padded tokens before each positional convolution.
    """

    def __init__(
        self,
        transformer: TransformerConfig,
        *,
        prenet: int = 0,
        dropout: float = 0.0,
        norm: bool = True,
        extra_tokens: int = 0,
        alibi_scales: tuple[int, int] | None = None,
        learn_alibi: bool = True,
        grid: tuple[int, int] | None = None,
        convolution: PositionalConvStack | None = None,
        convolution_norm: bool = False,
        zero_padding: bool = True,
    ) -> None:
        super().__init__()
        width = transformer.width
        self.prenet, self.grid, self.zero_padding = prenet, grid, zero_padding
        self.heads = transformer.heads
        tokens = nn.Parameter(torch.zeros(1, extra_tokens, width)) if extra_tokens else None
        self.extra_tokens = tokens
        scale = None if alibi_scales is None else torch.ones(*alibi_scales, 1, 1)
        self.alibi_scale = None if scale is None else nn.Parameter(scale, requires_grad=learn_alibi)
        fixed = None if grid is None else torch.zeros(1, grid[0] * grid[1], width)
        self.fixed_positions: Tensor | None
        self.register_buffer("fixed_positions", fixed)
        self.position_norm = nn.LayerNorm(width) if convolution_norm else None
        self.positions = convolution
        self.norm = nn.LayerNorm(width, eps=transformer.eps) if norm else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = Transformer(transformer)

    @torch.no_grad()
    def reset_parameters(self, init: Callable[[Tensor], Any] = nn.init.zeros_) -> None:
        """Extra tokens by `init`, scales 1, fixed positions by their formula."""
        if self.extra_tokens is not None:
            init(self.extra_tokens)
        if self.alibi_scale is not None:
            self.alibi_scale.fill_(1.0)
        if self.fixed_positions is not None and self.grid is not None:
            self.fixed_positions.copy_(sincos_positions(*self.grid, self.fixed_positions.shape[-1])[None])

    @property
    def shared(self) -> int:
        """Blocks that give targets: all but the prenet's."""
        return len(self.blocks) - self.prenet

    @property
    def extra(self) -> int:
        """P."""
        return 0 if self.extra_tokens is None else self.extra_tokens.shape[1]

    def forward(
        self, tokens: Tokens, visible: Visible | None = None, **collect: Any
    ) -> tuple[Tensor, TransformerOutput]:
        """Run on all tokens, or on the visible ones of every mask.

        Args:
            tokens: local features (B, T, H).
            visible: None: all.
            collect: for the blocks.

        Returns:
            The first block's input (B, P + T, H) or (R, P + K, H), and the blocks' outputs.
        """
        x = tokens.features
        if self.fixed_positions is not None:
            x = x + self._fixed(tokens)
        if visible is None:
            padding = tokens.padding_mask
            x = x if self.positions is None else x + self._convolved(x, padding)
            index = torch.arange(x.shape[1], device=x.device)[None]
        else:
            padding, index = visible.padding, visible.index
            x = self._gather(x, tokens.padding_mask, visible)
        bias = self._bias(index, padding, tokens.grid, x.dtype)
        if self.extra_tokens is not None:
            x = torch.cat([self.extra_tokens.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        x = self.dropout(x if self.norm is None else self.norm(x))
        done: TransformerOutput = self.blocks(x, bias, **collect)
        return x, done

    def layers(self, tokens: Tokens) -> LayerOutputs:
        """All shared blocks' outputs on all tokens: what targets are made of."""
        _, done = self(tokens, blocks=True, ffns=True)
        return LayerOutputs(done.output, done.blocks[self.prenet :], done.ffns[self.prenet :], self.extra)

    def visible(self, tokens: Tokens, visible: Visible) -> LayerOutputs:
        """The last block's output on visible tokens."""
        _, done = self(tokens, visible)
        return LayerOutputs(done.output, [], [], self.extra)

    def _gather(self, x: Tensor, padding_mask: Tensor | None, visible: Visible) -> Tensor:
        """(B, T, H) -> the visible tokens (R, K, H), with their positions where those come from a convolution.

        The convolution sees all T tokens of a row, the hidden ones zeroed; tokens are cloned M times only for it.
        """
        (batch, tokens), rows = x.shape[:2], len(visible.index)
        seen = x.flatten(0, 1).index_select(0, flat_rows(visible.index, batch, tokens)).view(*visible.index.shape, -1)
        if self.positions is None:
            return seen
        masked = (x[:, None] * visible.seen.view(batch, -1, tokens, 1)).flatten(0, 1)
        padding = None if padding_mask is None else padding_mask.repeat_interleave(rows // batch, 0)
        placed = self._convolved(masked, padding).flatten(0, 1)
        return seen + placed.index_select(0, flat_rows(visible.index, rows, tokens)).view_as(seen)

    def _convolved(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        assert self.positions is not None
        x = x if self.position_norm is None else self.position_norm(x)
        if not self.zero_padding or padding_mask is None:
            return self.positions(x)  # type: ignore[no-any-return]
        return self.positions(x.masked_fill(padding_mask[..., None], 0.0), padding_mask)  # type: ignore[no-any-return]

    def _fixed(self, tokens: Tokens) -> Tensor:
        """The fixed positions (1, T, H), interpolated (bicubic) to the grid of the tokens."""
        assert self.fixed_positions is not None and self.grid is not None
        if tokens.grid is None or tokens.grid == self.grid:
            return self.fixed_positions
        table = self.fixed_positions.view(1, *self.grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=tokens.grid, mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)

    def _bias(self, index: Tensor, padding: Tensor | None, grid: tuple[int, int] | None, dtype: torch.dtype) -> Bias:
        """ALiBi and padding, (R or 1, heads or 1, 1 or P + K, P + K), one for all blocks or one a block.

        Extra tokens are at distance 0 from everything.
        """
        extra = self.extra
        hidden = None if padding is None else F.pad(padding, (extra, 0))[:, None, None, :]
        least = torch.finfo(dtype).min
        if self.alibi_scale is None:
            if hidden is None:
                return None
            return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, least)
        biases = []
        for scale in self.alibi_scale:
            bias = alibi(index, scale, self.heads, None if grid is None else grid[1])
            bias = F.pad(bias, (extra, 0, extra, 0)).to(dtype)
            biases.append(bias if hidden is None else bias.masked_fill(hidden, least))
        return biases[0] if len(biases) == 1 else biases


def hide(x: Tensor, mask: Tensor | None, std: float, noise: Tensor | None = None) -> Tensor:
    """Put noise in the place of tokens, as fine-tuning does (the student of pre-training does not see hidden tokens).

    Args:
        x: (B, T, H).
        mask: (B, T) bool, True = hidden; None hides nothing.
        std: of the noise; 0: zeros.
        noise: (B, T, H) instead of drawn noise.
    """
    if mask is None:
        return x
    if noise is None:
        noise = torch.randn_like(x) * std if std > 0 else torch.zeros_like(x)
    return torch.where(mask.bool()[..., None], noise.to(x.dtype), x)


def alibi_scales(config: Data2Vec2Config) -> tuple[int, int] | None:
    """(layers or 1, heads or 1) of the scales that a configuration asks for; None: no ALiBi."""
    if not config.use_alibi:
        return None
    layers = config.num_hidden_layers if config.alibi_scale_per_layer else 1
    return layers, config.num_attention_heads if config.alibi_scale_per_head else 1

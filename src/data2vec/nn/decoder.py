"""Convolutional decoder of data2vec 2: from the encoder's visible tokens and noise to predictions of the hidden ones.

Shapes: R rows (masks), T tokens on a line or on a grid, N wanted tokens, D width of the encoder, C channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.nn.conv import same_conv
from data2vec.nn.windows import convolve, convolve_at, products_are_fast


class DecoderLayer(nn.Module):
    """Convolution -> layer norm over channels without affine -> GELU, channels last; plus the input if `residual`."""

    def __init__(self, source: int, channels: int, kernel: int, groups: int, dimensions: int, residual: bool) -> None:
        super().__init__()
        kind = nn.Conv1d if dimensions == 1 else nn.Conv2d
        self.conv = kind(source, channels, kernel, padding=kernel // 2, groups=groups)
        self.residual = residual and source == channels

    def forward(self, x: Tensor) -> Tensor:
        """(R, *sides, source) -> (R, *sides, C). An even kernel drops its last outputs, as the original does."""
        conv = self.conv
        if isinstance(conv, nn.Conv1d):
            out = same_conv(x, conv.weight, conv.bias, conv.groups)
        else:
            out = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, : x.shape[1], : x.shape[2]]
        return self.finish(out, x)

    @property
    def bias(self) -> Tensor:
        """Of the convolution."""
        assert self.conv.bias is not None
        return self.conv.bias

    def finish(self, out: Tensor, x: Tensor) -> Tensor:
        """What follows the convolution, row by row: its output (..., C), its input (..., source)."""
        out = F.gelu(F.layer_norm(out, out.shape[-1:]))
        return out + x if self.residual else out


class Decoder(nn.Module):
    """Layers of convolution over all tokens, then a projection back to D (fairseq `Decoder1d`, `Decoder2d`).

    Args:
        width: D.
        channels: C.
        kernel: side of each kernel, in tokens.
        layers: number of convolutions.
        groups: of each convolution.
        dimensions: 1 convolves along the line, 2 on the grid.
        residual: add a layer's input to its output where their widths agree.
        projection_layers: linear layers after the convolutions, with GELU between them.
        projection_ratio: their inner width, as a multiple of C.
        dropout: on the encoder's output, see `dropped`.
    """

    def __init__(
        self,
        width: int,
        *,
        channels: int,
        kernel: int,
        layers: int,
        groups: int,
        dimensions: int = 1,
        residual: bool = True,
        projection_layers: int = 1,
        projection_ratio: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dimensions, self.groups, self.gap = dimensions, groups, kernel // 2
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(channels if layer else width, channels, kernel, groups, dimensions, residual)
            for layer in range(layers)
        )
        widths = [channels] + [int(channels * projection_ratio)] * (projection_layers - 1)
        inner = [part for source, target in pairwise(widths) for part in (nn.Linear(source, target), nn.GELU())]
        self.projection = nn.Sequential(*inner, nn.Linear(widths[-1], width))

    def forward(
        self,
        x: Tensor,
        wanted: Tensor,
        *,
        given: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Predictions at chosen tokens.

        Args:
            x: (R, T, D) the encoder's output where a token is visible, noise where it is hidden.
            wanted: (N,) positions to predict, in (R, T) flattened.
            given: (V,) positions of the encoder's outputs, the only ones whose gradient is read; None: all.
            grid: (rows, columns) of the tokens, for two dimensions.
            padding_mask: (R, T) bool, True = padding, which is zero for every layer.

        Returns:
            (N, D).
        """
        if self.dimensions == 1 and self.groups == 1 and products_are_fast(x):
            return self._project(self._products(x, wanted, given, padding_mask))
        rows, tokens, _ = x.shape
        sides = (tokens,) if self.dimensions == 1 else grid
        assert sides is not None
        for layer in self.layers:
            if padding_mask is not None:
                x = x.masked_fill(padding_mask[..., None], 0.0)
            x = layer(x.view(rows, *sides, -1)).reshape(rows, tokens, -1)
        return self._project(x.flatten(0, 1).index_select(0, wanted))

    def _project(self, x: Tensor) -> Tensor:
        predicted: Tensor = self.projection(x)
        return predicted

    def _products(self, x: Tensor, wanted: Tensor, given: Tensor | None, padding_mask: Tensor | None) -> Tensor:
        """The layers as matrix products (`data2vec.nn.windows`), the last one at `wanted` only -> (N, C)."""
        count, tokens, _ = x.shape
        quiet = x.new_zeros(count, tokens, dtype=torch.bool) if padding_mask is None else padding_mask
        silent = F.pad(quiet, (0, self.gap), value=True).flatten().nonzero()[:, 0]
        rows = F.pad(x, (0, 0, 0, self.gap)).flatten(0, 1)
        wanted = wanted + wanted // tokens * self.gap
        used = None if given is None else given + given // tokens * self.gap
        *layers, last = cast("list[DecoderLayer]", list(self.layers))
        for layer in layers:
            rows = layer.finish(convolve(rows, layer.conv.weight, layer.bias, silent, used), rows)
            used = None
        out = convolve_at(rows, last.conv.weight, last.bias, silent, wanted)
        return last.finish(out, rows.index_select(0, wanted) if last.residual else out)

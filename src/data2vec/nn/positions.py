"""Positions: convolutional (audio), relative on a grid (images), counted past padding (text)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.nn.conv import same_conv


class PositionalConv(nn.Module):
    """One layer of the positional convolution: grouped convolution -> layer norm without affine -> activation."""

    def __init__(self, width: int, kernel: int, groups: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). An even kernel drops its last frame, as the original does."""
        x = same_conv(x, self.conv.weight, self.conv.bias, self.conv.groups)
        return self.activation(F.layer_norm(x, x.shape[-1:]))


class PositionalConvStack(nn.ModuleList):
    """The positional encoder of audio: layers of `PositionalConv`, to be added to their input.

    With kernel 19 and five layers a frame sees 45 frames on either side. A padded frame is zero at the input, but the
    norm of a layer makes it non-zero for the next one: unless it is zeroed again, padding reaches 36 valid frames.
    """

    def __init__(
        self, width: int, kernel: int, groups: int, depth: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__([PositionalConv(width, kernel, groups, activation) for _ in range(depth)])

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); frames where `padding_mask` (B, T) is True are zeroed after each layer."""
        for layer in self:
            x = layer(x)
            if padding_mask is not None:
                x = x.masked_fill(padding_mask[..., None], 0.0)
        return x


class RelativePositionBias(nn.Module):
    """BEiT's bias table: one number a head for each offset between patches, and three for pairs with the CLS token.

    Args:
        grid: (rows, columns) that the table was made for.
        heads: H.
        compatible: read the table of a grid that is not square as transformers does, with its axes swapped.
    """

    def __init__(self, grid: tuple[int, int], heads: int, *, compatible: bool = False) -> None:
        super().__init__()
        self.grid = grid
        self.swapped = compatible and grid[0] != grid[1]
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads))

    def forward(self, grid: tuple[int, int] | None = None) -> Tensor:
        """The bias (1, H, P + 1, P + 1) on `grid`; other grids interpolate the offsets."""
        grid = grid or self.grid
        index = relative_position_index(*grid).to(self.table.device)
        table = self._resized(grid) if grid != self.grid or self.swapped else self.table
        side = grid[0] * grid[1] + 1
        return table[index.flatten()].view(side, side, -1).permute(2, 0, 1).unsqueeze(0).contiguous()

    def _resized(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = 2 * self.grid[0] - 1, 2 * self.grid[1] - 1
        if self.swapped:
            rows, columns = columns, rows
        offsets = self.table[:-3].view(1, rows, columns, -1).permute(0, 3, 1, 2)
        offsets = F.interpolate(offsets, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear")
        return torch.cat([offsets[0].flatten(1).t(), self.table[-3:]])


@lru_cache(maxsize=32)
def relative_position_index(rows: int, columns: int) -> Tensor:
    """Table row for every pair of tokens, (P + 1, P + 1) long, CLS first (BEiT, `modeling_finetune.py`)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    y, x = y.flatten(), x.flatten()
    offset_y, offset_x = y[:, None] - y[None] + rows - 1, x[:, None] - x[None] + columns - 1
    patches = offset_y * (2 * columns - 1) + offset_x
    count = (2 * rows - 1) * (2 * columns - 1)
    index = torch.empty(rows * columns + 1, rows * columns + 1, dtype=torch.long)
    index[1:, 1:] = patches
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed positions of a grid, (rows * columns, D) (MAE, `get_2d_sincos_pos_embed`).

    Sine and cosine of the column in the first half of the channels, of the row in the second.
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    quarter = width // 4
    rates = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = [axis.reshape(-1, 1) * rates for axis in (x, y)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()


def text_positions(
    padding_mask: Tensor | None, shape: tuple[int, int], pad_id: int, device: torch.device, past: int | Tensor = 0
) -> Tensor:
    """RoBERTa positions (B, L): ``pad_id + 1 + rank`` among the valid tokens, `pad_id` on padding.

    Args:
        padding_mask: (B, L) True = padding; None = nothing is padded.
        shape: (B, L).
        pad_id: the padding id, where counting starts.
        device: of the result.
        past: valid tokens before these ones, of all rows or of each (B, 1).
    """
    if padding_mask is None:
        return (torch.arange(shape[1], device=device) + pad_id + 1 + past).expand(shape)
    valid = ~padding_mask
    return (valid.cumsum(dim=1) + past) * valid + pad_id

"""The optional adapter after speech's Transformer: strided convolutions that shorten the sequence.

Shapes: B batch, T frames, H width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.models.audio.config import Data2VecAudioConfig


class AdapterLayer(nn.Module):
    """Convolution to twice the width, padded by one frame on either side, then a gated linear unit."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, 2 * width, kernel, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> (B, T', H) with ``T' = (T + 2 - kernel) // stride + 1``."""
        return F.glu(self.conv(x.transpose(1, 2)), dim=1).transpose(1, 2)

    def shrink(self, padding_mask: Tensor) -> Tensor:
        """(B, T) True = padding -> (B, T'): a frame is valid when its clip alone would have it.

        That is when its whole window lies on valid frames or on the one frame of zeros that the convolution adds
        around a clip.
        """
        valid = (~padding_mask).float()[:, None]
        ringed = F.max_pool1d(F.pad(valid, (2, 2), mode="replicate"), 3, stride=1)  # positions -1 ... T
        whole = -F.max_pool1d(-ringed, self.conv.kernel_size[0], self.conv.stride[0])
        return whole[:, 0] < 1


class AudioAdapter(nn.Module):
    """Optional projection to `output_hidden_size`, then `num_adapter_layers` of `AdapterLayer`.

    Padded frames are zeroed before each layer, so that a clip gives the same alone and in a batch. The reference does
    not, and it drops adapter layers in training, which changes the output's length: ``compat="transformers"``.
    """

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__()
        assert config.output_hidden_size is not None
        narrows = config.output_hidden_size != config.hidden_size
        self.projection = nn.Linear(config.hidden_size, config.output_hidden_size) if narrows else None
        self.norm = nn.LayerNorm(config.output_hidden_size) if narrows else None
        self.layers = nn.ModuleList(
            AdapterLayer(config.output_hidden_size, config.adapter_kernel_size, config.adapter_stride)
            for _ in range(config.num_adapter_layers)
        )
        self.compatible, self.layerdrop = config.is_compatible, config.layerdrop

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, H) and its padding (B, T) -> (B, T', output_hidden_size) and its padding (B, T')."""
        if self.projection is not None and self.norm is not None:
            x = self.norm(self.projection(x))
        layer: AdapterLayer
        for layer in self.layers:  # type: ignore[assignment]
            if self.compatible:
                x = x if self._drops() else layer(x)
                continue
            if padding_mask is not None:
                x = x.masked_fill(padding_mask[..., None], 0.0)
                padding_mask = layer.shrink(padding_mask)
            x = layer(x)
        return x, padding_mask

    def _drops(self) -> bool:
        drawn = np.random.random()  # also in evaluation, as the reference does
        return self.training and drawn <= self.layerdrop


def reference_lengths(frames: Tensor, config: Data2VecAudioConfig) -> Tensor:
    """Frames after the adapter by the reference's formula, which leaves the kernel out."""
    for _ in range(config.num_adapter_layers):
        frames = torch.div(frames - 1, config.adapter_stride, rounding_mode="floor") + 1
    return frames

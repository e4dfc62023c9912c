"""Speech's front door: waveform -> frames of local features (50 a second with the published strides)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.nn.activations import activation
from data2vec.nn.conv import strided_conv


class ConvLayer(nn.Module):
    """Convolution -> layer norm over channels -> activation, channels last."""

    def __init__(self, config: Data2VecAudioConfig, index: int) -> None:
        super().__init__()
        source = config.conv_dim[index - 1] if index else 1
        kernel, stride = config.conv_kernel[index], config.conv_stride[index]
        self.conv = nn.Conv1d(source, config.conv_dim[index], kernel, stride, bias=config.conv_bias)
        self.norm = nn.LayerNorm(config.conv_dim[index])
        self.activation = activation(config.feat_extract_activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, R * stride, C) -> (B, R, C'); rows past the exact ones are arbitrary, see `strided_conv`."""
        return self.activation(self.norm(strided_conv(x, self.conv.weight, self.conv.bias, self.conv.stride[0])))


class AudioFrontend(nn.Module):
    """Seven convolutions, then norm and projection (wav2vec 2.0's feature extractor, layer-norm mode)."""

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList(ConvLayer(config, index) for index in range(len(config.conv_dim)))
        self.norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def convolve(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> convolution features (B, T, conv_dim[-1]), ``T = config.frames(samples)``."""
        frames = self.config.frames(waveform.shape[1])
        step = self.config.inputs_to_logits_ratio
        dtype = self.projection.weight.dtype
        x = F.pad(waveform.to(dtype), (0, -waveform.shape[1] % step))[..., None]
        for layer in self.convs:
            x = layer(x)
        return x[:, :frames]

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, samples) -> features (B, T, hidden_size) and normalised convolution features (B, T, conv_dim[-1])."""
        normed = self.norm(self.convolve(waveform))
        return self.projection(normed), normed

    def lengths(self, samples: Tensor) -> Tensor:
        """Valid samples -> valid frames, elementwise; at least 0."""
        return self.raw_lengths(samples).clamp(min=0)

    def raw_lengths(self, samples: Tensor) -> Tensor:
        """The same formula below one frame too: 0 or less, as the reference uses it."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples

    def padding(self, attention_mask: Tensor, frames: int) -> Tensor:
        """Sample mask (B, samples), 1 = valid -> frame padding (B, frames), True = padding.

        A frame is valid when its whole receptive field is, on whichever side the padding stands: n valid samples in a
        row have ``config.frames(n)`` of them. The reference always puts the valid frames first, and takes a row
        without any for one that is full.
        """
        position = torch.arange(frames, device=attention_mask.device)
        if self.config.is_compatible:
            valid = self.raw_lengths(attention_mask.long().sum(dim=1))
            return position >= torch.where(valid > 0, valid, frames + valid)[:, None]
        field, start = self.config.receptive_field, position * self.config.inputs_to_logits_ratio
        before = F.pad(attention_mask.long().cumsum(dim=1), (1, 0))
        return before[:, start + field] - before[:, start] < field

    def check(self, waveform: Tensor, attention_mask: Tensor | None) -> None:
        """Refuse what is no batch of waveforms of at least one frame, or a mask of another shape."""
        shape = tuple(waveform.shape)
        if waveform.dim() != 2:
            raise UserError(f"input_values must be (batch, samples), not of shape {shape}")
        if self.config.frames(shape[1]) < 1:
            raise UserError(
                f"input_values has {shape[1]} samples, too short for one frame: pad it or leave the clip out"
            )
        if attention_mask is not None and attention_mask.shape != shape:
            raise UserError(f"attention_mask has shape {tuple(attention_mask.shape)}, input_values {shape}")

    def reset_parameters(self) -> None:
        """Uniform +-1/sqrt(in) projection, as published."""
        bound = 1 / math.sqrt(self.projection.in_features)
        nn.init.uniform_(self.projection.weight, -bound, bound)
        nn.init.uniform_(self.projection.bias, -bound, bound)

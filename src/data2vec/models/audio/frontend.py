"""Speech's front door: waveform -> frames of local features (50 a second with the published strides)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

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
        x = F.pad(waveform, (0, -waveform.shape[1] % step))[..., None]
        for layer in self.convs:
            x = layer(x)
        return x[:, :frames]

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, samples) -> features (B, T, hidden_size) and normalised convolution features (B, T, conv_dim[-1])."""
        normed = self.norm(self.convolve(waveform))
        return self.projection(normed), normed

    def reset_parameters(self) -> None:
        """Uniform +-1/sqrt(in) projection, as published."""
        bound = 1 / math.sqrt(self.projection.in_features)
        nn.init.uniform_(self.projection.weight, -bound, bound)
        nn.init.uniform_(self.projection.bias, -bound, bound)

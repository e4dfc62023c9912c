"""Initialisations of the published models."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def bert_init(module: nn.Module, std: float) -> None:
    """BERT: linear and embedding weights N(0, std), biases 0, norms 1 and 0; the padding row of an embedding is 0."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        module.weight.normal_(0.0, std)
        if module.bias is not None:
            module.bias.zero_()
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0.0, std)
        if module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
    elif isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)) and module.weight is not None:
        module.weight.fill_(1.0)
        module.bias.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()


@torch.no_grad()
def conv_init(module: nn.Conv1d) -> None:
    """Kaiming normal weights, as the feature extractor of wav2vec 2.0 has; biases uniform as torch sets them."""
    nn.init.kaiming_normal_(module.weight)
    conv_bias_init(module)


@torch.no_grad()
def conv_bias_init(module: nn.Conv1d | nn.Conv2d) -> None:
    """Biases uniform within 1 / sqrt(inputs of an output), as torch sets them."""
    if module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        nn.init.uniform_(module.bias, -bound, bound)

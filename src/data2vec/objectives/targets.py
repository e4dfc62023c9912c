"""Targets: the mean of the teacher's top layers, normalised. Shapes: B batch, T tokens, D width. Everything in fp32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.objectives.config import TargetConfig

EPS = 1e-5


def average_layers(layers: Sequence[Tensor], config: TargetConfig, padding_mask: Tensor | None = None) -> Tensor:
    """Normalise each of the last K layers, average, normalise (paper section 3.3; fairseq `data2vec_audio.py`).

    Args:
        layers: (B, T, D) each, without special tokens; the last `config.layers` are used.
        config: K and the norms.
        padding_mask: (B, T) bool, True = padding.

    Returns:
        (B, T, D) fp32.
    """
    if len(layers) < config.layers:
        raise ValueError(f"target.layers is {config.layers}, the teacher has only {len(layers)} blocks")
    padding = None if config.norm_over_padding else padding_mask
    top = layers[-config.layers :]
    total = normalize(top[0].float(), config.layer_norm, padding)
    for layer in top[1:]:
        total = total + normalize(layer.float(), config.layer_norm, padding)
    return normalize(total / len(top), config.final_norm, padding)


def normalize(x: Tensor, kind: str, padding_mask: Tensor | None = None) -> Tensor:
    """One norm without parameters, biased variance, eps 1e-5; padded tokens do not count where `padding_mask` is given.

    ``layer`` over D; ``instance`` over T, for each item and channel; ``batch`` over B and T, for each channel;
    ``group`` over B and D, for each frame (fairseq's ``group_norm_target_layer``).
    """
    if kind == "none":
        return x
    if kind == "layer":
        return F.layer_norm(x, x.shape[-1:], eps=EPS)
    dims = {"instance": (1,), "batch": (0, 1), "group": (0, 2)}[kind]
    if padding_mask is None:
        var, mean = torch.var_mean(x, dim=dims, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(var + EPS)
    valid = (~padding_mask)[..., None].to(x.dtype).expand_as(x)
    count = valid.sum(dims, keepdim=True).clamp(min=1)
    mean = (x * valid).sum(dims, keepdim=True) / count
    var = ((x - mean).square() * valid).sum(dims, keepdim=True) / count
    return (x - mean) * torch.rsqrt(var + EPS) * valid

"""SpecAugment's span masks for training a head (arXiv 1904.08779), as wav2vec 2.0's fine-tuning draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def random_source(*, compatible: bool) -> Any:
    """Where masks come from: a source seeded by torch's generator, so that one seed makes a run.

    With `compatible` it is numpy's global one, which the reference draws from.
    """
    return np.random if compatible else np.random.RandomState(int(torch.randint(2**31 - 1, ())))


def span_mask(
    lengths: Sequence[int], size: int, probability: float, span: int, least: int, source: Any
) -> NDArray[np.bool_]:
    """Spans to hide in each row.

    Args:
        lengths: valid positions of each row, from its start.
        size: length of the axis.
        probability: share of positions in spans, were there no overlap.
        span: length of a span. A row shorter than this gets no mask.
        least: spans a row gets at least, where it is long enough.
        source: ``rand`` and ``choice`` are called on it, in the reference's order.

    Returns:
        (rows, size), True = hidden. No span reaches beyond its row's valid positions.
    """
    mask = np.zeros((len(lengths), size), dtype=bool)
    rounding = source.rand(1).item()

    def count(length: int) -> int:
        spans = max(int(probability * length / span + rounding), least)
        return max(min(spans, size // span, length - span + 1), 0)

    if count(size) == 0:
        return mask
    for row, length in enumerate(lengths):
        starts = np.arange(max(length - span + 1, 0))
        if len(starts):
            chosen = source.choice(starts, count(length), replace=False)
            mask[row, (chosen[:, None] + np.arange(span)).ravel()] = True
    return mask


def frame_mask(
    batch: int, frames: int, padding_mask: Tensor | None, shape: tuple[float, int, int], source: Any
) -> Tensor:
    """Spans of frames to hide, on valid frames only, on whichever side the padding stands.

    Args:
        batch: rows.
        frames: T.
        padding_mask: (B, T), True = padding; None = no padding.
        shape: probability, span and least of `span_mask`.
        source: see `span_mask`.

    Returns:
        (B, T) bool on the CPU, True = hidden.
    """
    if padding_mask is None:
        return torch.from_numpy(span_mask([frames] * batch, frames, *shape, source))
    valid = ~padding_mask.cpu()
    mask = torch.from_numpy(span_mask(valid.sum(dim=1).tolist(), frames, *shape, source))
    rank = valid.long().cumsum(dim=1) - 1  # the mask was drawn as if valid frames came first
    return mask.gather(1, rank.clamp(min=0)) & valid

"""What an objective asks of a modality. Anything that answers these two calls can be pre-trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass
class Tokens:
    """A front door's output: local features before masking.

    Attributes:
        features: (B, T, D).
        padding_mask: (B, T) bool, True = padding; None when nothing is padded.
        grid: (rows, columns) with ``rows * columns == T``, for images.
        normed: (B, T, C) normalised convolution features, for audio (what the documentation calls `extract_features`).
    """

    features: Tensor
    padding_mask: Tensor | None = None
    grid: tuple[int, int] | None = None
    normed: Tensor | None = None

    def detached(self) -> Tokens:
        """The same without graph."""
        return Tokens(self.features.detach(), self.padding_mask, self.grid)


@dataclass
class LayerOutputs:
    """An encoder's output.

    Attributes:
        output: (B, prefix + T, D), what a head reads.
        blocks: each block's output, (B, prefix + T, D).
        ffns: each block's feed-forward output before dropout, residual and norm, (B, prefix + T, D).
        prefix: special tokens in front (a CLS token).
    """

    output: Tensor
    blocks: list[Tensor]
    ffns: list[Tensor]
    prefix: int = 0


@runtime_checkable
class Encoder(Protocol):
    """A modality's network; always an ``nn.Module`` too.

    What only `embed` needs lives in a submodule called ``frontend``: a teacher that reads the student's local features
    goes without it.
    """

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """Local features of a batch, before masking."""
        ...

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """All layers' outputs; where `mask` (B, T) is True the network sees its mask embedding instead of the token."""
        ...

"""Keys and values of past tokens, so that a decoder computes each only once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LayerCache:
    """One attention's keys and values, (B, heads, S, d) each; empty at first."""

    key: Tensor | None = None
    value: Tensor | None = None

    @property
    def filled(self) -> bool:
        """Whether anything is stored."""
        return self.key is not None

    @property
    def length(self) -> int:
        """Stored positions S."""
        return 0 if self.key is None else self.key.shape[-2]

    def read(self) -> tuple[Tensor, Tensor]:
        """Stored keys and values."""
        assert self.key is not None
        assert self.value is not None
        return self.key, self.value

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions (B, heads, T, d) and return everything stored."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2)
        self.key, self.value = key, value
        return key, value

    def reorder(self, rows: Tensor) -> None:
        """Keep batch rows `rows` (B',), as beam search asks."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key[rows], self.value[rows]


@dataclass
class Cache:
    """A decoder's cache: one `LayerCache` a block for self-attention and one for cross-attention.

    Attributes:
        attention: of each block.
        cross_attention: of each block.
        counted: (B, 1) positions given away so far: padding takes none. None while nobody counts.
    """

    attention: list[LayerCache] = field(default_factory=list)
    cross_attention: list[LayerCache] = field(default_factory=list)
    counted: Tensor | None = None

    @classmethod
    def empty(cls, depth: int) -> Cache:
        """A cache for `depth` blocks."""
        return cls([LayerCache() for _ in range(depth)], [LayerCache() for _ in range(depth)])

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.attention[0].length if self.attention else 0

    def reorder(self, rows: Tensor) -> None:
        """Keep batch rows `rows`."""
        for layer in [*self.attention, *self.cross_attention]:
            layer.reorder(rows)
        if self.counted is not None:
            self.counted = self.counted[rows]

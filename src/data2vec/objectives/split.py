"""Masks as indices: which tokens a student sees and which it predicts, in rectangles.

Shapes: B batch, M masks an item, R = B * M rows, T tokens, K visible tokens, N hidden tokens, of the fullest row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data2vec.errors import UserError
from data2vec.models.v2.encoder import Visible, flat_rows


@dataclass
class Split:
    """The masks of one batch.

    Attributes:
        visible: the tokens that students see.
        empty: (R, K) bool, True = slot of `visible` without a token; None when there is none.
        hidden: (R, N) long, positions to predict; slots past a row's last one hold any position.
        counts: (R, N) bool, True = such a slot holds a token to predict.
        masked: (B, M, T) bool, True = to predict.
        padding: (B, T) bool, True = neither seen nor predicted; None when nothing is.
    """

    visible: Visible
    empty: Tensor | None
    hidden: Tensor
    counts: Tensor
    masked: Tensor
    padding: Tensor | None

    def rows_of_visible(self, items: int) -> Tensor:
        """(R * K,) rows of the visible tokens in an (items, T, ...) tensor, flattened; items is B or R."""
        return flat_rows(self.visible.index, items, self.masked.shape[2])

    def rows_of_hidden(self, items: int) -> Tensor:
        """(R * N,) rows of the hidden tokens, as `rows_of_visible`."""
        return flat_rows(self.hidden, items, self.masked.shape[2])


def split(mask: Tensor, padding: Tensor | None, items: int, tokens: int, *, count_padding: bool = False) -> Split:
    """Split every row's tokens into visible and hidden ones; padding is neither.

    Rows may keep different numbers of tokens: the short ones get empty slots, which attention and loss leave out. There
    is always a slot for a visible and for a hidden token, so a row may hide all, nothing, or be nothing but padding.

    Args:
        mask: (B, M, T) bool, True = hidden.
        padding: (B, T) bool, True = padding.
        items: B, as the encoder counts it.
        tokens: T, as the encoder counts it.
        count_padding: padding is visible or hidden as the mask has it; only attention leaves it out (algorithms P8).

    Raises:
        UserError: `mask` has another shape.
    """
    if mask.dim() != 3 or (mask.shape[0], mask.shape[2]) != (items, tokens):
        shape = tuple(mask.shape)
        raise UserError(f"mask must be ({items} items, masks, {tokens} tokens) for data2vec 2, not {shape}")
    ignored = None if count_padding else padding
    masked, seen = mask, ~mask
    if ignored is not None:
        masked, seen = masked & ~ignored[:, None], seen & ~ignored[:, None]
    least, most, hidden = _extremes(seen, masked)
    flat = seen.flatten(0, 1)
    index, taken = _positions(flat, max(most, 1))
    slots, counts = _positions(masked.flatten(0, 1), max(hidden, 1))
    empty = unattended = None if least == max(most, 1) else ~taken
    if count_padding and padding is not None:
        unattended = padding.repeat_interleave(mask.shape[1], 0).gather(1, index)
        unattended = unattended if empty is None else unattended | empty
    return Split(Visible(index, unattended, flat), empty, slots, counts, masked, ignored)


def _extremes(seen: Tensor, masked: Tensor) -> tuple[int, int, int]:
    """Least and largest number of visible tokens in a row, largest number of hidden ones: sizes that the host needs."""
    visible, hidden = seen.sum(-1), masked.sum(-1)
    least, most, deepest = torch.stack([visible.min(), visible.max(), hidden.max()]).tolist()
    return int(least), int(most), int(deepest)


def _positions(chosen: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """(R, T) bool -> positions of the chosen tokens, ascending, in (R, slots), and (R, slots) bool, True = chosen."""
    index = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :slots]
    return index, chosen.gather(1, index)

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


def split(
    mask: Tensor, padding: Tensor | None, *, count_padding: bool = False, indices: tuple[Tensor, Tensor] | None = None
) -> Split:
    """Split every row's tokens into visible and hidden ones; padding is neither.

    Rows may keep different numbers of tokens: the short ones get empty slots, which attention and loss leave out. There
    is always a slot for a visible and for a hidden token, so a row may hide all, nothing, or be nothing but padding.

    Args:
        mask: (B, M, T) bool, True = hidden.
        padding: (B, T) bool, True = padding.
        count_padding: padding is visible or hidden as the mask has it; only attention leaves it out (algorithms P8).
        indices: what `mask_indices` gave for this mask and padding; without it the device is asked for the sizes.
    """
    ignored = None if count_padding else padding
    visible, hidden = mask_indices(mask, ignored) if indices is None else indices
    visible, hidden = visible.flatten(0, 1), hidden.flatten(0, 1)
    taken, counts = visible >= 0, hidden >= 0
    # Every row has T tokens: where the largest counts add up to T, no slot is empty.
    full = ignored is None and visible.shape[1] + hidden.shape[1] == mask.shape[2]
    if indices is None and not full:
        full = bool(taken.all())
    index = visible.clamp(min=0)
    empty = unattended = None if full else ~taken
    if count_padding and padding is not None:
        unattended = padding.repeat_interleave(mask.shape[1], 0).gather(1, index)
        unattended = unattended if empty is None else unattended | empty
    masked, seen = _hidden_and_seen(mask, ignored)
    seen = seen.flatten(0, 1)
    return Split(Visible(index, unattended, seen), empty, hidden.clamp(min=0), counts, masked, ignored)


def mask_indices(mask: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positions of the visible and of the hidden tokens of every row.

    Made where batches are made (``batch["visible"]``, ``batch["hidden"]``), they spare the step a wait for the device.

    Args:
        mask: (B, M, T) bool, True = hidden.
        padding: (B, T) bool, True = padding.

    Returns:
        (B, M, K) and (B, M, N) long, ascending, -1 in the slots past a row's last; K and N are at least 1.
    """
    hidden, seen = _hidden_and_seen(mask, padding)
    sizes = torch.stack([seen.sum(-1).max(), hidden.sum(-1).max()]).clamp(min=1).tolist() if mask.numel() else [1, 1]
    return _positions(seen, int(sizes[0])), _positions(hidden, int(sizes[1]))


def _hidden_and_seen(mask: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    if padding is None:
        return mask, ~mask
    valid = ~padding[:, None]
    return mask & valid, ~mask & valid


def _positions(chosen: Tensor, slots: int) -> Tensor:
    """(..., T) bool -> positions of the chosen tokens (..., slots), then -1."""
    index = (~chosen).to(torch.uint8).argsort(dim=-1, stable=True)[..., :slots]
    return index.masked_fill(~chosen.gather(-1, index), -1)


def check_mask(mask: Tensor, items: int, tokens: int) -> None:
    """Refuse a mask that is not (B, M, T) as the encoder counts items and tokens (algorithms P7)."""
    if mask.dim() != 3 or (mask.shape[0], mask.shape[2]) != (items, tokens):
        shape = tuple(mask.shape)
        raise UserError(f"mask must be ({items} items, masks, {tokens} tokens) for data2vec 2, not {shape}")

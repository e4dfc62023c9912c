"""Rows to a batch: stacked or padded, with an attention mask where something is padded, and the objective's masks.

Shapes: B rows, M copies (masks a row, data2vec 2), T tokens (frames, sub-words or patches).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from data2vec.data.audio import Sample
from data2vec.data.seeds import Stream, generator
from data2vec.errors import UserError

Bools = npt.NDArray[np.bool_]
PADDING: Mapping[str, float] = {"input_values": 0.0, "input_ids": 1, "labels": -100}
"""What fills a short row. ``<pad>`` is 1 in every published vocabulary; -100 is what losses leave out."""


class Masker(Protocol):
    """Draws a mask: `size` is the number of valid tokens, or the grid (rows, columns) of an image; True = hidden."""

    def __call__(self, rng: np.random.Generator, size: int | tuple[int, int]) -> Bools:
        """(T,) or (rows, columns) bool."""
        ...


class Selection(Protocol):
    """What a `TextMasker` draws, each (T,) bool."""

    @property
    def hidden(self) -> Bools:
        """Where the student sees ``<mask>``."""
        ...

    @property
    def replaced(self) -> Bools:
        """Where the student sees a random token."""
        ...


@runtime_checkable
class TextMasker(Protocol):
    """A masker that also says which tokens the student sees replaced by random ones (BERT's 80/10/10)."""

    def draw(self, rng: np.random.Generator, size: int) -> Selection:
        """What happens to each of `size` tokens."""
        ...


class Row(NamedTuple):
    """A loaded sample and the id that seeds its masks."""

    sample: int
    arrays: Sample


@dataclass(frozen=True)
class Collator:
    """Builds batches; the masks of a row depend on (seed, epoch, sample, copy) and its length only.

    Attributes:
        seed: of the masks.
        masker: draws the masks; None: the batch has none (fine-tuning, evaluation).
        copies: masks a row: None gives ``mask`` (B, T), a number M gives (B, M, T), where every mask then leaves
            the same number of tokens visible.
        token_count: length of a row -> its number of tokens: the model's frame count for audio; None: the length.
        grid: rows and columns of patches, for images.
        per_batch: (masker, generator of the global batch) -> the masker of this batch (v2's `mask_prob_min`).
        random_ids: (first, last + 1) of the ids that a `TextMasker` shows instead of a token: adds ``corrupted_ids``.
    """

    seed: int = 1
    masker: Masker | None = None
    copies: int | None = None
    token_count: Callable[[int], int] | None = None
    grid: tuple[int, int] | None = None
    per_batch: Callable[[Masker, np.random.Generator], Masker] | None = None
    random_ids: tuple[int, int] | None = None

    def __call__(self, rows: Sequence[Row], epoch: int = 0, position: int = 0) -> dict[str, torch.Tensor]:
        """The batch of `rows`, which belong to global batch `position` of `epoch`.

        Returns:
            every array of the rows, stacked (B, ...); ``attention_mask`` (B, length) long where rows differ in length;
            ``mask`` bool and ``corrupted_ids`` (B, L) as configured.

        Raises:
            UserError: copies need equal counts of visible tokens, and the masker's differ.
        """
        batch: dict[str, torch.Tensor] = {}
        for name in rows[0].arrays:
            batch |= stack(name, [row.arrays[name] for row in rows])
        if self.masker is not None:
            self._mask(batch, rows, epoch, position)
        return batch

    def _mask(self, batch: dict[str, torch.Tensor], rows: Sequence[Row], epoch: int, position: int) -> None:
        masker = self.masker
        assert masker is not None
        if self.per_batch is not None:
            masker = self.per_batch(masker, generator(Stream.RATE, self.seed, epoch, position))
        if self.random_ids is not None and isinstance(masker, TextMasker):
            self._corrupt(batch, rows, epoch, masker)
            return
        sizes = [self._size(row.arrays) for row in rows]
        valid = np.array([size if isinstance(size, int) else size[0] * size[1] for size in sizes])
        masks = np.zeros((len(rows), self.copies or 1, self._width(batch, valid)), dtype=np.bool_)
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            for copy in range(masks.shape[1]):
                rng = generator(Stream.MASK, self.seed, epoch, row.sample, copy)
                masks[index, copy, : valid[index]] = masker(rng, size).reshape(-1)
        if self.copies is not None:
            hide_padding(masks, valid)
        batch["mask"] = torch.from_numpy(masks if self.copies is not None else masks[:, 0])

    def _corrupt(self, batch: dict[str, torch.Tensor], rows: Sequence[Row], epoch: int, masker: TextMasker) -> None:
        if self.copies is not None:
            raise UserError("a mask that shows random tokens (random_prob) goes with data2vec 1; set random_prob=0")
        assert self.random_ids is not None
        ids = batch["input_ids"].clone()
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            length = len(row.arrays["input_ids"])
            drawn = masker.draw(generator(Stream.MASK, self.seed, epoch, row.sample), length)
            mask[index, :length] = torch.from_numpy(drawn.hidden)
            where = np.flatnonzero(drawn.replaced)
            shown = generator(Stream.CORRUPT, self.seed, epoch, row.sample).integers(*self.random_ids, len(where))
            ids[index, torch.from_numpy(where)] = torch.from_numpy(shown)
        batch["mask"], batch["corrupted_ids"] = mask, ids

    def _size(self, arrays: Sample) -> int | tuple[int, int]:
        if self.grid is not None:
            return self.grid
        length = len(next(iter(arrays.values())))
        return self.token_count(length) if self.token_count is not None else length

    def _width(self, batch: Mapping[str, torch.Tensor], valid: npt.NDArray[np.int64]) -> int:
        if self.grid is not None:
            return int(valid[0])
        length = next(iter(batch.values())).shape[1]
        return self.token_count(length) if self.token_count is not None else length


def stack(name: str, arrays: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """One field of a batch, and its ``attention_mask`` where it is an input whose rows differ in length."""
    lengths = [len(array) if array.ndim else 0 for array in arrays]
    if len(set(lengths)) == 1:
        return {name: torch.from_numpy(np.stack(arrays))}
    out = np.full((len(arrays), max(lengths)), PADDING[name], dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    fields = {name: torch.from_numpy(out)}
    if name.startswith("input_"):
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        fields["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return fields


def hide_padding(masks: Bools, valid: npt.NDArray[np.int64]) -> None:
    """Let every mask leave the same number of tokens visible by hiding just so much padding. In place.

    The student of data2vec 2 reads only visible tokens, so their number must be one for all rows. Rows shorter than
    the longest hide fewer tokens; what their masks leave visible too little, padding fills. Where a mask is True on
    padding there is nothing to predict: an objective leaves padding out of its loss.

    Args:
        masks: (B, M, T), False beyond `valid`.
        valid: (B,) tokens of each row that are no padding.

    Raises:
        UserError: rows hide different numbers of tokens for another reason than padding.
    """
    length = masks.shape[2]
    visible = valid[:, None] - masks.sum(axis=2)
    fill = visible.max(initial=0) - visible
    if (fill > (length - valid)[:, None]).any():
        raise UserError(
            f"masks of one batch leave {visible.min()} to {visible.max()} tokens visible: data2vec 2 needs a mask with "
            "an exact count (block or random masks, not spans)"
        )
    place = np.arange(length)
    masks |= place >= (valid[:, None] + fill)[:, :, None]

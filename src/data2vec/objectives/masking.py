"""What is hidden from the student: every mask of data2vec 1 and 2, as functions of (generator, size).

A masker is a small frozen dataclass, called ``masker(rng, size) -> mask``. `size` is the number of valid tokens, or the
grid (height, width) of an image; the mask is bool, (T,) or (height * width,) row-major, True = hidden.

The rule for every masker, so that a student always sees something and always has something to predict: with two tokens
or more, at least one is hidden and at least one is visible; with fewer, none is hidden. (`SpanMask` with
``min_masks=0``, as SpecAugment uses it, may hide nothing.) Clips shorter than a span and grids smaller than a block are
ordinary input. Padding is never hidden: draw on the valid length, then pad with False.

Shapes: T tokens, h and w the grid, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data2vec.configuration import check_fields, positive, probability, ranged
from data2vec.errors import UserError

Size = int | tuple[int, int]
Mask = NDArray[np.bool_]
SpanLengths = Literal["static", "uniform", "normal", "poisson"]
SpanStarts = Literal["inside", "anywhere"]


class Masker(Protocol):
    """Anything that draws a mask; a user's own function will do."""

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask for `size` tokens: (T,) or (h * w,) bool, True = hidden."""
        ...


def rng_for(seed: int, epoch: int, sample_id: int, copy: int = 0) -> np.random.Generator:
    """The generator of one copy of one sample in one epoch: the same in any process, at any world size.

    The original draws from OS entropy or seeds with Python's ``hash`` (algorithms P9); neither can be repeated safely.

    Args:
        seed: of the run; like the others an integer in [0, 2**64).
        epoch: passes over the data so far.
        sample_id: the sample's place in its data set.
        copy: which of the masks of one sample (data2vec 2 draws several).
    """
    words = [word for key in (seed, epoch, sample_id, copy) for word in (key & 0xFFFFFFFF, key >> 32)]
    return np.random.default_rng(np.random.SeedSequence(words))


@dataclass(frozen=True)
class SpanMask:
    """Spans of tokens at random starts, clipped at the end and united (fairseq `compute_mask_indices`).

    The number of spans is ``int(prob * T / length + U)``, U ~ U[0, 1), and at least `min_masks`; starts are drawn
    without replacement. Overlaps make the hidden share smaller than `prob`: 49 % of 500 frames for .65 and 10.

    Attributes:
        prob: spans times length over T, in [0, 1].
        length: tokens in a span (its mean where `lengths` is not static). A clip too short for it gets spans of T // 2.
        min_masks: least number of spans.
        starts: "inside" draws from range(T - length), as the audio code does (so the last frame is never hidden);
            "anywhere" from range(T), as the text code does.
        lengths: how span lengths vary: static; uniform in [spread, 2 * length]; normal with deviation `spread`,
            rounded, at least 1; poisson.
        spread: fairseq's `mask_other`, see `lengths`.
        no_overlap: spans keep `min_space` visible tokens between them, every arrangement equally likely; spans that do
            not fit are left out.
        min_space: see `no_overlap`.
        mask_dropout: share of the hidden tokens that is shown again, one by one: spans get holes.
    """

    prob: float = probability(0.65)
    length: int = positive(10)
    min_masks: int = ranged(1, low=0)
    starts: SpanStarts = "inside"
    lengths: SpanLengths = "static"
    spread: float = ranged(0.0, low=0)
    no_overlap: bool = False
    min_space: int = ranged(1, low=0)
    mask_dropout: float = probability(0.0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lengths == "uniform" and self.spread > 2 * self.length:
            raise UserError(f"SpanMask.spread must be at most twice the length {self.length}, not {self.spread}")

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        tokens = _tokens(size)
        lengths = self._draw_lengths(rng, tokens) if tokens > 1 else np.zeros(0, np.int64)
        if not len(lengths):
            return np.zeros(tokens, bool)
        if self.no_overlap:
            starts, lengths = _starts_apart(rng, tokens, lengths, self.min_space)
        else:
            room = tokens - int(lengths.min()) if self.starts == "inside" else tokens
            lengths = lengths[:room]
            starts = rng.choice(room, len(lengths), replace=False)
        mask = _paint(tokens, starts, lengths)
        if self.mask_dropout:
            hidden = int(np.count_nonzero(mask))
            _set_count(rng, mask, hidden - round(hidden * self.mask_dropout))
        return _keep_both(rng, mask)

    def _draw_lengths(self, rng: np.random.Generator, tokens: int) -> NDArray[np.int64]:
        """The lengths of the spans to place, each in [0, tokens - 1]; none where nothing is to be hidden."""
        length, chance = self.length, rng.random()
        spans = max(self.min_masks, int(self.prob * tokens / length + chance))
        if tokens - length <= (spans if self.starts == "inside" else 0):
            # Here the original hides all but a frame, hides everything or raises.
            length = max(1, min(length, tokens // 2))
            spans = max(self.min_masks, int(self.prob * tokens / length + chance))
        match self.lengths:
            case "static":
                return np.full(spans, length)
            case "uniform":
                lengths = rng.integers(int(self.spread), 2 * length, spans, endpoint=True)
            case "normal":
                lengths = np.maximum(1, np.rint(rng.normal(length, self.spread, spans)).astype(np.int64))
            case "poisson":
                lengths = rng.poisson(length, spans)
        if spans and not lengths.any():
            lengths = np.array([length])
        return np.minimum(lengths, tokens - 1)


class TokenMask(NamedTuple):
    """What `TextMask` drew, each (T,) bool and disjoint; their union is the selection.

    Attributes:
        hidden: shown as ``<mask>``. The loss is taken here and only here, as in the released code (algorithms P11).
        replaced: shown as a random token.
        kept: shown as it is.
    """

    hidden: Mask
    replaced: Mask
    kept: Mask


@dataclass(frozen=True)
class TextMask:
    """BERT's 15 % with 80/10/10, or the spans of the released text recipe (fairseq `MaskTokensDataset`).

    The released data2vec YAML is ``TextMask(prob=0.35, length=4, random_prob=0, keep_prob=0)``: 30.7 % hidden. The
    paper's main row is the default.

    Attributes:
        prob: selected share before overlaps, in [0, 1].
        length: tokens in a span.
        random_prob, keep_prob: shares of the selection that are replaced by a random token, or kept; together below 1.
    """

    prob: float = probability(0.15)
    length: int = positive(1)
    random_prob: float = probability(0.1)
    keep_prob: float = probability(0.1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.random_prob + self.keep_prob >= 1:
            total = f"TextMask.random_prob {self.random_prob:g} and TextMask.keep_prob {self.keep_prob:g}"
            raise UserError(f"{total} must be below 1 together: the rest of the selection is hidden")

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        return self.draw(rng, size).hidden

    def draw(self, rng: np.random.Generator, size: Size) -> TokenMask:
        """The mask, with the positions that the collator replaces or keeps."""
        selected = _spans_anywhere(self.prob, self.length)(rng, size)
        if not self.random_prob + self.keep_prob:
            return TokenMask(selected, np.zeros_like(selected), np.zeros_like(selected))
        fate = rng.random(len(selected))
        if selected.any():  # at least one <mask>, else there is no loss
            fate[np.where(selected, fate, -1).argmax()] = 1
        replaced = selected & (fate < self.random_prob)
        hidden = selected & (fate >= self.random_prob + self.keep_prob)
        return TokenMask(hidden, replaced, selected & ~replaced & ~hidden)


@dataclass(frozen=True)
class RandomMask:
    """Single random tokens, an exact number (MAE; data2vec 2 text): ``int(T * (1 - prob))`` stay visible.

    Attributes:
        prob: hidden share, in [0, 1].
        prob_min: where set, the share is drawn from U(prob_min, prob): see `with_rate`.
    """

    prob: float = probability(0.5)
    prob_min: float | None = ranged(None, low=0, high=1)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_prob_min(self)

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        tokens = _tokens(size)
        mask = np.zeros(tokens, bool)
        if tokens > 1:
            visible = int(tokens * (1 - with_rate(self, rng).prob))
            _set_count(rng, mask, min(max(tokens - visible, 1), tokens - 1))
        return mask


@dataclass(frozen=True)
class BlockMask:
    """Random blocks brought to an exact count: what the two block masks of data2vec 2 share (algorithms 2.3).

    Attributes:
        prob: hidden share R, in [0, 1]: exactly ``int(N * R)`` of N tokens are hidden; if `inverse`, exactly
            ``int(N * (1 - R))`` are visible.
        adjust: added to the share when blocks are counted, because blocks overlap.
        length: tokens along a side of a block.
        inverse: the blocks are what stays visible.
        mask_dropout: so many more blocks are placed; the final count stays.
        expand_adjacent: too small a cover grows from its neighbours instead of by scattered single tokens.
        non_overlapping: blocks are cells of a grid, drawn without replacement.
        prob_min: where set, the share is drawn from U(prob_min, prob): see `with_rate`.
    """

    prob: float = probability(0.5)
    adjust: float = probability(0.05)
    length: int = positive(5)
    inverse: bool = False
    mask_dropout: float = probability(0.0)
    expand_adjacent: bool = False
    non_overlapping: bool = False
    prob_min: float | None = ranged(None, low=0, high=1)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_prob_min(self)

    def _draw(self, rng: np.random.Generator, grid: tuple[int, int], block: tuple[int, int]) -> Mask:
        """A mask (h * w,) of blocks (height, width) of that shape."""
        tokens = grid[0] * grid[1]
        if tokens < 2:
            return np.zeros(tokens, bool)
        rate = with_rate(self, rng).prob
        rate = 1 - rate if self.inverse else rate
        place = _place_cells if self.non_overlapping else _place_blocks
        mask = place(rng, grid, block, rate + self.adjust, 1 + self.mask_dropout)
        count = min(max(int(tokens * rate), 1), tokens - 1)
        if self.expand_adjacent:
            _grow(rng, mask, min(int(count * (1 + self.mask_dropout)), tokens))
        flat = mask.ravel()
        _set_count(rng, flat, count)
        return ~flat if self.inverse else flat


@dataclass(frozen=True)
class BlockMask1d(BlockMask):
    """Blocks of `length` tokens of a sequence; fields in `BlockMask`, the defaults are data2vec 2 audio base."""

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        return self._draw(rng, (1, _tokens(size)), (1, self.length))


@dataclass(frozen=True)
class BlockMask2d(BlockMask):
    """Squares of `length` x `length` patches; fields in `BlockMask`, the defaults are data2vec 2 image base.

    (39 of 196 patches visible, in blocks.)
    """

    prob: float = probability(0.8)
    adjust: float = probability(0.07)
    length: int = positive(3)
    inverse: bool = True

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        return self._draw(rng, _grid(self, size), (self.length, self.length))


@dataclass(frozen=True)
class BeitBlockMask:
    """Rectangles of random area and shape, until enough patches are hidden (BEiT `MaskingGenerator`, data2vec 1).

    Each rectangle has an area ~ U(min_area, what is left of the count), an aspect ratio log-uniform in
    [min_aspect, 1 / min_aspect], is smaller than the grid in both directions, and may hide no more new patches than are
    left. After `attempts` misses in a row the mask is done, so counts fall short as in the original: 113 to 120
    for 120 of 196 (algorithms P12), never a patch more.

    Attributes:
        prob: hidden share; 120 of 196 by default.
        count: hidden patches, where a number is meant on every grid.
        min_area: least area of a rectangle, in patches; at most half the count on small grids.
        min_aspect: see above, in (0, 1].
        attempts: rectangles tried before giving up.
        exact: fill up with random single patches where rectangles fall short.
    """

    prob: float = probability(120 / 196)
    count: int | None = ranged(None, low=1)
    min_area: int = positive(16)
    min_aspect: float = ranged(0.3, above=0, high=1)
    attempts: int = positive(10)
    exact: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, rng: np.random.Generator, size: Size) -> Mask:
        """Draw a mask: (T,) or (h * w,) bool, True = hidden."""
        mask = np.zeros(_grid(self, size), bool)
        if mask.size < 2:
            return mask.ravel()
        wanted = round(self.prob * mask.size) if self.count is None else self.count
        left = wanted = min(max(wanted, 1), mask.size - 1)
        least = min(self.min_area, max(wanted // 2, 1))
        while left and (hidden := self._add_rectangle(rng, mask, least, left)):
            left -= hidden
        if self.exact or left == wanted:  # or no rectangle fits this grid at all
            _set_count(rng, mask.ravel(), wanted)
        return mask.ravel()

    def _add_rectangle(self, rng: np.random.Generator, mask: NDArray[np.bool_], least: int, left: int) -> int:
        """Hide one rectangle of at most `left` new patches; returns how many it hid, 0 after too many misses.

        Where `left` < `least`, areas fall between the two, as in the original: this is why counts fall short.
        """
        height, width = mask.shape
        for size, shape, down, right in rng.random((self.attempts, 4)).tolist():
            area = least + (left - least) * size
            stretch = self.min_aspect ** (1 - 2 * shape)
            rows, columns = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
            if rows < height and columns < width:
                top, side = int((height - rows + 1) * down), int((width - columns + 1) * right)
                window = mask[top : top + rows, side : side + columns]
                hidden = window.size - int(np.count_nonzero(window))
                if 0 < hidden <= left:
                    window[:] = True
                    return hidden
        return 0


def equalize(rng: np.random.Generator, masks: Sequence[Mask], *, add: bool = False) -> list[Mask]:
    """Bring the rows of a batch to one count of hidden tokens by single random tokens.

    The released `require_same_masks` (down to the smallest count) and `add_masks` (up to the largest). It tears holes
    in spans (algorithms P10), so nothing here needs it; it is kept for reproduction.

    Args:
        rng: one generator for the batch.
        masks: B masks, (T_b,) each, of valid tokens only.
        add: hide more instead of showing more.

    Raises:
        UserError: if some row has too few tokens for the largest count.
    """
    counts = [int(np.count_nonzero(mask)) for mask in masks]
    count = (max if add else min)(counts, default=0)
    for row, mask in enumerate(masks):
        if count and count >= len(mask):
            raise UserError(f"mask row {row} has {len(mask)} tokens, too few to hide {count}: use add=False")
    rows = [mask.copy() for mask in masks]
    for mask in rows:
        _set_count(rng, mask, count)
    return rows


Rated = TypeVar("Rated", RandomMask, BlockMask, BlockMask1d, BlockMask2d)


def with_rate(masker: Rated, rng: np.random.Generator) -> Rated:
    """`masker` with `prob` drawn from U(prob_min, prob) where `prob_min` is set, else as it is.

    Call it once a batch (the original's `mask_prob_min`): all rows of a batch then hide the same share. A masker with
    `prob_min` that is called directly draws a rate for each mask.
    """
    if masker.prob_min is None:
        return masker
    return replace(masker, prob=float(rng.uniform(masker.prob_min, masker.prob)), prob_min=None)


@lru_cache
def _spans_anywhere(prob: float, length: int) -> SpanMask:
    return SpanMask(prob, length, starts="anywhere")


def _tokens(size: Size) -> int:
    return size[0] * size[1] if isinstance(size, tuple) else size


def _grid(masker: object, size: Size) -> tuple[int, int]:
    if not isinstance(size, tuple):
        raise UserError(
            f"{type(masker).__name__} needs a grid (height, width), got {size}: use a 1-d mask for sequences"
        )
    return size


def _paint(tokens: int, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Mask:
    """The union of spans, clipped at the end: positions where more spans have begun than ended."""
    begun = np.bincount(starts, minlength=tokens + 1)
    ended = np.bincount(np.minimum(starts + lengths, tokens), minlength=tokens + 1)
    return np.cumsum(begun - ended)[:tokens] > 0


def _starts_apart(
    rng: np.random.Generator, tokens: int, lengths: NDArray[np.int64], space: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts of spans at least `space` apart, uniform over all arrangements that leave a token visible.

    Takes the longest prefix of `lengths` that fits, then spreads the free tokens: k sorted distinct numbers below
    free + k, less 0..k-1, are the free tokens before each span (stars and bars).
    """
    lengths = lengths[lengths > 0]
    ends = np.cumsum(lengths + space)
    fit = int(np.count_nonzero(ends - space < tokens))
    lengths, ends = lengths[:fit], ends[:fit]
    free = tokens - int(ends[-1]) + space
    before = np.sort(rng.choice(free + fit, fit, replace=False)) - np.arange(fit)
    return before + ends - lengths - space, lengths


def _place_blocks(
    rng: np.random.Generator, grid: tuple[int, int], block: tuple[int, int], rate: float, extra: float
) -> NDArray[np.bool_]:
    """Blocks round centres drawn with replacement, cut off at the border; at least one."""
    (height, width), tokens = grid, grid[0] * grid[1]
    blocks = int(tokens * (rate / (block[0] * block[1])) * extra)
    rows, columns = np.divmod(rng.integers(0, tokens, max(blocks, 1)), width)
    rows = (rows[:, None] + np.arange(block[0]) - block[0] // 2).clip(0, height - 1)
    columns = (columns[:, None] + np.arange(block[1]) - block[1] // 2).clip(0, width - 1)
    mask = np.zeros(grid, bool)
    mask[rows[:, :, None], columns[:, None, :]] = True
    return mask


def _place_cells(
    rng: np.random.Generator, grid: tuple[int, int], block: tuple[int, int], rate: float, extra: float
) -> NDArray[np.bool_]:
    """Cells of a grid of blocks, drawn without replacement; the last row and column of cells may be cut off."""
    cells = np.zeros((math.ceil(grid[0] / block[0]), math.ceil(grid[1] / block[1])), bool)
    _set_count(rng, cells.ravel(), min(max(int(cells.size * rate * extra), 1), cells.size))
    return cells.repeat(block[0], 0).repeat(block[1], 1)[: grid[0], : grid[1]].copy()


def _grow(rng: np.random.Generator, mask: NDArray[np.bool_], count: int) -> None:
    """Hide random 4-neighbours of what is hidden, ring by ring, until `count` are. In place; `mask` is not empty."""
    while (missing := count - int(np.count_nonzero(mask))) > 0:
        near = np.zeros_like(mask)
        near[1:] |= mask[:-1]
        near[:-1] |= mask[1:]
        near[:, 1:] |= mask[:, :-1]
        near[:, :-1] |= mask[:, 1:]
        border = np.flatnonzero(near & ~mask)
        mask.flat[rng.choice(border, min(missing, len(border)), replace=False)] = True


def _set_count(rng: np.random.Generator, mask: Mask, count: int) -> None:
    """Hide or show random single tokens until `count` are hidden. In place."""
    excess = int(np.count_nonzero(mask)) - count
    if excess:
        pool = np.flatnonzero(mask if excess > 0 else ~mask)
        mask[rng.choice(pool, abs(excess), replace=False, shuffle=False)] = excess < 0


def _keep_both(rng: np.random.Generator, mask: Mask) -> Mask:
    """The rule of this module: of two tokens or more, at least one hidden and one visible."""
    _set_count(rng, mask, min(max(int(np.count_nonzero(mask)), 1), len(mask) - 1))
    return mask


def _check_prob_min(config: RandomMask | BlockMask) -> None:
    if config.prob_min is not None and config.prob_min > config.prob:
        name = type(config).__name__
        raise UserError(f"{name}.prob_min must be at most {name}.prob {config.prob}, not {config.prob_min}")

"""What every mask keeps, whatever its settings and however small the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.objectives.masking import (
    BeitBlockMask,
    BlockMask1d,
    BlockMask2d,
    Masker,
    RandomMask,
    Size,
    SpanMask,
    TextMask,
    equalize,
    rng_for,
)

share = st.floats(0, 1)
lengths = st.integers(1, 30)
seeds = st.integers(0, 2**64 - 1)
tokens = st.integers(0, 12) | st.integers(13, 200)
grids = st.tuples(st.integers(0, 16), st.integers(0, 16))


def blocks(kind: type[BlockMask1d] | type[BlockMask2d]) -> st.SearchStrategy[Any]:
    return st.builds(
        kind, prob=share, adjust=share, length=lengths, inverse=st.booleans(), mask_dropout=share,
        expand_adjacent=st.booleans(), non_overlapping=st.booleans(), prob_min=st.none() | st.just(0.0),
    )  # fmt: skip


spans = st.builds(
    SpanMask, prob=share, length=lengths, min_masks=st.integers(1, 5), starts=st.sampled_from(["inside", "anywhere"]),
    lengths=st.sampled_from(["static", "uniform", "normal", "poisson"]), spread=st.floats(0, 2),
    no_overlap=st.booleans(), min_space=st.integers(0, 4), mask_dropout=share,
)  # fmt: skip
texts = st.builds(TextMask, prob=share, length=lengths, random_prob=st.floats(0, 0.5), keep_prob=st.floats(0, 0.45))
beits = st.builds(
    BeitBlockMask, prob=share, count=st.none() | st.integers(1, 300), min_area=st.integers(1, 60),
    min_aspect=st.floats(0.05, 1), attempts=st.integers(1, 10), exact=st.booleans(),
)  # fmt: skip
randoms = st.builds(RandomMask, prob=share)
over_sequences = st.tuples(spans | texts | randoms | blocks(BlockMask1d), tokens)
over_grids = st.tuples(beits | randoms | blocks(BlockMask2d), grids)


@given(over_sequences | over_grids, seeds)
def test_something_is_hidden_and_something_visible(drawn: tuple[Masker, Size], seed: int) -> None:
    masker, size = drawn
    mask = masker(rng_for(seed, 0, 0), size)
    total = size[0] * size[1] if isinstance(size, tuple) else size
    assert mask.shape == (total,)
    assert mask.dtype == bool
    assert 1 <= mask.sum() <= total - 1 if total >= 2 else not mask.any()


@given(over_sequences | over_grids, seeds)
def test_same_generator_same_mask(drawn: tuple[Masker, Size], seed: int) -> None:
    masker, size = drawn
    np.testing.assert_array_equal(masker(rng_for(seed, 3, 5, 7), size), masker(rng_for(seed, 3, 5, 7), size))


@given(blocks(BlockMask1d), st.integers(2, 200), seeds)
def test_block_mask_1d_counts_are_exact(masker: BlockMask1d, size: int, seed: int) -> None:
    if masker.prob_min is not None:
        return
    hidden = int(masker(rng_for(seed, 0, 0), size).sum())
    wanted = size - int(size * (1 - masker.prob)) if masker.inverse else int(size * masker.prob)
    assert hidden == min(max(wanted, 1), size - 1)


@given(blocks(BlockMask2d), grids, seeds)
def test_block_mask_2d_counts_are_exact(masker: BlockMask2d, size: tuple[int, int], seed: int) -> None:
    total = size[0] * size[1]
    if masker.prob_min is not None or total < 2:
        return
    hidden = int(masker(rng_for(seed, 0, 0), size).sum())
    wanted = total - int(total * (1 - masker.prob)) if masker.inverse else int(total * masker.prob)
    assert hidden == min(max(wanted, 1), total - 1)


@given(st.integers(2, 400), share, seeds)
def test_random_mask_keeps_what_mae_keeps(size: int, prob: float, seed: int) -> None:
    visible = int((~RandomMask(prob)(rng_for(seed, 0, 0), size)).sum())
    assert visible == min(max(int(size * (1 - prob)), 1), size - 1)


@given(beits, grids, seeds)
def test_beit_mask_never_exceeds_its_count(masker: BeitBlockMask, size: tuple[int, int], seed: int) -> None:
    total = size[0] * size[1]
    if total < 2:
        return
    hidden = int(masker(rng_for(seed, 0, 0), size).sum())
    wanted = round(masker.prob * total) if masker.count is None else masker.count
    wanted = min(max(wanted, 1), total - 1)
    assert hidden == wanted if masker.exact else hidden <= wanted


@given(st.integers(2, 300), share, lengths, st.integers(0, 5), seeds)
def test_spans_without_overlap_keep_their_distance(size: int, prob: float, length: int, space: int, seed: int) -> None:
    mask = SpanMask(prob, length, no_overlap=True, min_space=space)(rng_for(seed, 0, 0), size)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    assert all(starts[1:] - ends[:-1] >= max(space, 1))
    span = min(length, size - 1)
    if space and size >= 4 * length:  # long enough for whole spans
        assert set(ends - starts) == {span}


@given(st.lists(st.tuples(spans, st.integers(2, 120)), min_size=1, max_size=6), seeds)
def test_equalize_brings_rows_to_one_count(rows: list[tuple[SpanMask, int]], seed: int) -> None:
    rng = rng_for(seed, 0, 0)
    masks = [masker(rng, size) for masker, size in rows]
    fewest = min(int(mask.sum()) for mask in masks)
    for before, after in zip(masks, equalize(rng, masks), strict=True):
        assert after.sum() == fewest
        assert not (after & ~before).any()
    most = max(int(mask.sum()) for mask in masks)
    if all(len(mask) > most for mask in masks):
        for before, after in zip(masks, equalize(rng, masks, add=True), strict=True):
            assert after.sum() == most
            assert not (before & ~after).any()
    else:
        with pytest.raises(ValueError, match="mask row"):
            equalize(rng, masks, add=True)


@given(texts, tokens, seeds)
def test_text_mask_parts_are_disjoint(masker: TextMask, size: int, seed: int) -> None:
    plan = masker.draw(rng_for(seed, 0, 0), size)
    assert (sum(part.astype(int) for part in plan) <= 1).all()
    np.testing.assert_array_equal(plan.hidden, masker(rng_for(seed, 0, 0), size))
    if not masker.random_prob:
        assert not plan.replaced.any()
    if not masker.keep_prob:
        assert not plan.kept.any()


@given(st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 4), min_size=2, max_size=2, unique=True))
def test_rng_for_has_a_stream_for_every_key(keys: list[tuple[int, int, int, int]]) -> None:
    first, second = (rng_for(*key).integers(2**63, size=4).tolist() for key in keys)
    assert first != second

"""The order of training, against what it promises, over many sizes and settings."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.data.sampler import BucketSampler, split
from data2vec.errors import UserError

lengths = st.lists(st.integers(1, 400), min_size=1, max_size=80)


def sampler(sizes: list[int], budget: int, **options: object) -> BucketSampler:
    return BucketSampler(lambda _: np.array(sizes, dtype=np.int64), budget, **options)  # type: ignore[arg-type]


@given(lengths, st.integers(400, 3000), st.sampled_from([0.0, 0.05, 0.5]), st.integers(0, 3))
def test_every_sample_once_and_never_over_budget(sizes: list[int], budget: int, ratio: float, epoch: int) -> None:
    batches = sampler(sizes, budget, bucket_ratio=ratio).batches(epoch)
    seen = np.concatenate([batch.indices for batch in batches])
    assert sorted(seen.tolist()) == list(range(len(sizes)))
    for place, batch in enumerate(batches):
        rows = np.array(sizes)[batch.indices]
        assert len(rows) * rows.max() <= budget
        assert (batch.epoch, batch.position, batch.crop) == (epoch, place, None)


@given(lengths, st.integers(100, 3000), st.integers(1, 100), st.integers(0, 3))
def test_crops_fit_every_row(sizes: list[int], budget: int, shortest: int, epoch: int) -> None:
    for batch in sampler(sizes, budget, crop=(shortest, 100)).batches(epoch):
        rows = np.array(sizes)[batch.indices]
        assert batch.crop is not None
        assert 1 <= batch.crop <= min(100, rows.min())
        assert batch.crop >= min(shortest, rows.min())
        assert len(rows) * np.minimum(rows, 100).max() <= budget


@given(lengths, st.integers(400, 2000), st.integers(0, 40), st.integers(1, 30))
def test_resume_at_any_point_gives_the_remaining_order(sizes: list[int], budget: int, done: int, more: int) -> None:
    whole = list(islice(sampler(sizes, budget, crop=(50, 300)).iterate(), done + more))
    last = whole[done - 1] if done else None
    state = (last.epoch, last.position + 1) if last else (0, 0)
    rest = list(islice(sampler(sizes, budget, crop=(50, 300)).iterate(*state), more))
    for a, b in zip(whole[done:], rest, strict=True):
        assert (a.epoch, a.position, a.crop) == (b.epoch, b.position, b.crop)
        np.testing.assert_array_equal(a.indices, b.indices)


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 6))
def test_ranks_share_a_batch_and_agree_on_the_number_of_parts(rows: int, world: int, accumulate: int) -> None:
    indices = np.arange(rows)
    if rows < world:
        with pytest.raises(UserError, match="processes"):
            split(indices, 0, world)
        return
    shares = [split(indices, rank, world, accumulate) for rank in range(world)]
    assert len({len(parts) for parts in shares}) == 1
    assert all(len(part) for parts in shares for part in parts)
    assert sorted(np.concatenate([part for parts in shares for part in parts]).tolist()) == list(range(rows))


def test_images_make_equal_batches_and_no_tiny_one() -> None:
    images = sampler([1] * 1001, 100)
    assert sorted(len(batch.indices) for batch in images.batches(0)) == [50, 51] + [100] * 9
    images = sampler([1] * 1001, 100, drop_last=True)
    assert [len(batch.indices) for batch in images.batches(0)] == [100] * 10
    assert [len(batch.indices) for batch in sampler([1] * 7, 100, drop_last=True).batches(0)] == [7]


def test_batches_hold_like_lengths_in_an_order_that_changes() -> None:
    sizes = np.random.default_rng(0).integers(100, 1000, 2000).tolist()
    bucketed = sampler(sizes, 10_000)
    first, second = bucketed.batches(0), bucketed.batches(1)
    waste = [1 - np.array(sizes)[b.indices].mean() / np.array(sizes)[b.indices].max() for b in first[:-1]]
    assert np.mean(waste) < 0.08
    assert {tuple(sorted(b.indices)) for b in first} != {tuple(sorted(b.indices)) for b in second}
    longest = [max(sizes[i] for i in batch.indices) for batch in first]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    again = sampler(sizes, 10_000).batches(0)
    assert all((a.indices == b.indices).all() for a, b in zip(first, again, strict=True))
    assert any(
        (a.indices != b.indices).any()
        for a, b in zip(first, sampler(sizes, 10_000, seed=2).batches(0), strict=False)
        if len(a.indices) == len(b.indices)
    )


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(400, 4000), st.floats(0.01, 0.5))
def test_no_row_outside_a_batch_would_fit_better(sizes: list[int], budget: int, ratio: float) -> None:
    """What keeps padding low: a batch is a stretch of the samples sorted by length, lengths within the ratio equal."""
    lengths = np.array(sizes)
    for batch in sampler(sizes, budget, bucket_ratio=ratio).batches(0):
        inside = lengths[batch.indices]
        outside = np.delete(lengths, batch.indices)
        between = outside[(outside > inside.min() * (1 + ratio)) & (outside * (1 + ratio) < inside.max())]
        assert not len(between)


def test_exact_sorting_is_that_of_the_original() -> None:
    """Slow reference: descending lengths, a new batch when one more row would break the budget (`batch_by_size`)."""
    sizes = np.random.default_rng(1).permutation(np.arange(100, 400)).tolist()
    drawn = {tuple(sorted(b.indices.tolist())) for b in sampler(sizes, 2000, bucket_ratio=0).batches(0)}
    expected: list[list[int]] = [[]]
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if expected[-1] and (len(expected[-1]) + 1) * sizes[expected[-1][0]] > 2000:
            expected.append([])
        expected[-1].append(index)
    assert {tuple(sorted(batch)) for batch in expected[:-2]} <= drawn  # the last two share their rows evenly


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="smaller than one sample"):
        sampler([10, 500], 400).batches(0)
    with pytest.raises(UserError, match="no samples"):
        sampler([], 400).batches(0)

"""Padding and masks of a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data2vec.data.collate import Collator, Row, hide_padding
from data2vec.errors import UserError


def half(rng: np.random.Generator, size: int | tuple[int, int]) -> np.ndarray:
    """An exact count: int(size / 2) tokens stay visible."""
    tokens = size if isinstance(size, int) else size[0] * size[1]
    mask = np.ones(tokens, dtype=np.bool_)
    mask[rng.permutation(tokens)[: tokens // 2]] = False
    return mask if isinstance(size, int) else mask.reshape(size)


def coin(rng: np.random.Generator, size: int | tuple[int, int]) -> np.ndarray:
    return rng.random(size) < 0.5


def text_rows(*lengths: int) -> list[Row]:
    return [Row(10 + i, {"input_ids": np.arange(5, 5 + n, dtype=np.int64)}) for i, n in enumerate(lengths)]


def test_equal_rows_are_stacked_without_attention_mask() -> None:
    batch = Collator(masker=half)(text_rows(8, 8))
    assert set(batch) == {"input_ids", "mask"}
    assert batch["mask"].shape == (2, 8)
    assert batch["mask"].dtype == torch.bool
    assert set(Collator()(text_rows(8, 8))) == {"input_ids"}


def test_ragged_rows_are_padded_and_padding_is_never_masked() -> None:
    batch = Collator(masker=lambda rng, size: np.ones(size, dtype=np.bool_))(text_rows(3, 6, 5))
    assert batch["input_ids"][0].tolist() == [5, 6, 7, 1, 1, 1]
    assert batch["attention_mask"].tolist() == [[1] * 3 + [0] * 3, [1] * 6, [1] * 5 + [0]]
    assert batch["attention_mask"].dtype == torch.int64
    assert torch.equal(batch["mask"], batch["attention_mask"].bool())


def test_audio_masks_count_frames() -> None:
    rows = [Row(0, {"input_values": np.ones(100, np.float32)}), Row(1, {"input_values": np.ones(60, np.float32)})]
    batch = Collator(masker=half, token_count=lambda n: n // 10)(rows)
    assert batch["mask"].shape == (2, 10)
    assert not batch["mask"][1, 6:].any()
    assert batch["mask"].sum(1).tolist() == [5, 3]
    assert batch["input_values"][1, 60:].abs().sum() == 0


def test_image_masks_are_row_major_grids() -> None:
    rows = [Row(i, {"pixel_values": np.zeros((3, 8, 12), np.float32)}) for i in range(2)]

    def top(rng: np.random.Generator, size: int | tuple[int, int]) -> np.ndarray:
        mask = np.zeros(size, dtype=np.bool_)
        mask[0] = True
        return mask

    batch = Collator(masker=top, grid=(2, 3))(rows)
    assert batch["pixel_values"].shape == (2, 3, 8, 12)
    assert batch["mask"].tolist() == [[True] * 3 + [False] * 3] * 2
    assert Collator(masker=half, copies=4, grid=(2, 3))(rows)["mask"].shape == (2, 4, 6)


def test_masks_depend_on_the_sample_and_not_on_its_company() -> None:
    collate = Collator(masker=coin, copies=None, seed=3)
    together = collate(text_rows(20, 20, 20), epoch=1)["mask"]
    alone = [collate([row], epoch=1)["mask"][0] for row in text_rows(20, 20, 20)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together, collate(text_rows(20, 20, 20), epoch=2)["mask"])
    assert not torch.equal(together, Collator(masker=coin, seed=4)(text_rows(20, 20, 20), epoch=1)["mask"])
    copies = Collator(masker=half, copies=3, seed=3)(text_rows(20))["mask"][0]
    assert len({tuple(copy.tolist()) for copy in copies}) == 3


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.integers(1, 4))
def test_copies_leave_equally_many_tokens_visible(lengths: list[int], copies: int) -> None:
    batch = Collator(masker=half, copies=copies)(text_rows(*lengths))
    mask = batch["mask"]
    assert mask.shape == (len(lengths), copies, max(lengths))
    assert len(set((~mask).sum(-1).flatten().tolist())) == 1
    for row, length in zip(mask, lengths, strict=True):
        assert ((~row[:, :length]).sum(-1) == length // 2).all()  # the masker's own share of real tokens is kept


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 2**16))
def test_any_masks_are_made_equal_by_padding_or_refused(lengths: list[int], copies: int, seed: int) -> None:
    valid, tokens = np.array(lengths), max(lengths)
    inside = (np.arange(tokens) < valid[:, None])[:, None]
    masks = (np.random.default_rng(seed).random((len(valid), copies, tokens)) < 0.5) & inside
    visible = valid[:, None] - masks.sum(-1)
    if (visible.max() - visible > (tokens - valid)[:, None]).any():
        with pytest.raises(UserError, match="exact count"):
            hide_padding(masks, valid)
        return
    before = masks.copy()
    hide_padding(masks, valid)
    assert ((~masks).sum(-1) == visible.max()).all()
    assert np.array_equal(masks & inside, before)


def test_copies_refuse_masks_of_varying_count() -> None:
    with pytest.raises(UserError, match="exact count"):
        Collator(masker=coin, copies=2)(text_rows(30, 30, 30))


def test_hide_padding_by_hand() -> None:
    masks = np.array([[[1, 0, 1, 0, 0, 1]], [[1, 1, 0, 0, 0, 0]]], dtype=np.bool_)  # 3 of 6, and 2 of 3 tokens
    hide_padding(masks, np.array([6, 3]))
    assert masks.astype(int).tolist() == [[[1, 0, 1, 0, 0, 1]], [[1, 1, 0, 0, 0, 1]]]


class Drawn(NamedTuple):
    hidden: np.ndarray
    replaced: np.ndarray


class EveryThird:
    def __call__(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return self.draw(rng, size).hidden

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        place = np.arange(size)
        return Drawn(place % 3 == 0, place % 3 == 1)


def test_random_tokens_go_to_the_student_only() -> None:
    batch = Collator(masker=EveryThird(), random_ids=(100, 200))(text_rows(9, 6))
    ids, shown = batch["input_ids"], batch["corrupted_ids"]
    place = torch.arange(9)
    replaced = (place % 3 == 1) & batch["attention_mask"].bool()
    assert torch.equal(shown[~replaced], ids[~replaced])
    assert ((shown[replaced] >= 100) & (shown[replaced] < 200)).all()
    assert torch.equal(batch["mask"], (place % 3 == 0) & batch["attention_mask"].bool())
    with pytest.raises(UserError, match="random_prob"):
        Collator(masker=EveryThird(), random_ids=(100, 200), copies=2)(text_rows(9))


def test_a_rate_is_drawn_once_a_global_batch() -> None:
    def rate(masker: object, rng: np.random.Generator) -> object:
        hidden = int(rng.integers(1, 19))
        return lambda _, size: np.arange(size) < hidden

    collate = Collator(masker=half, per_batch=rate)  # type: ignore[arg-type]
    counts = [collate(text_rows(20, 20), position=p)["mask"].sum(1).tolist() for p in range(20)]
    assert all(a == b for a, b in counts)
    assert len({a for a, _ in counts}) > 3

"""Our masks against statistics of the original generators (masks.pt): all within sampling error.

An entry holds statistics of a few hundred masks, and some of the masks. Ours are drawn in groups of the size that the
original equalised together (1 where it did not), so that the spread between groups is known and every statistic of the
entry has a standard error. What each entry was drawn with is read from its `settings` (fairseq's names) where it has
them, else from its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data2vec.objectives.masking import (
    BeitBlockMask,
    BlockMask1d,
    BlockMask2d,
    Masker,
    Size,
    SpanMask,
    TextMask,
    equalize,
)

LONGEST = 40  # runs longer than this are counted as this long
LIMIT = 4.5  # standard errors; some 400 numbers are compared

V2_PUBLISHED: dict[str, dict[str, Any]] = {  # algorithms.md 2.8, by the word in the entry's name
    "audio_base": {"mask_prob": 0.5, "mask_prob_adjust": 0.05, "mask_length": 5},
    "audio_large": {"mask_prob": 0.55, "mask_prob_adjust": 0.1, "mask_length": 5},
    "audio_inverse": {"mask_prob": 0.5, "mask_prob_adjust": 0.05, "mask_length": 5, "inverse_mask": True},
    "image_base": {"mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 3, "inverse_mask": True},
    "image_large": {"mask_prob": 0.75, "mask_prob_adjust": 0.1, "mask_length": 3, "inverse_mask": True},
    "image_huge": {"mask_prob": 0.75, "mask_prob_adjust": 0.1, "mask_length": 3, "inverse_mask": True},
}


@dataclass(frozen=True)
class Case:
    """How an entry was drawn: the masker, the size, and how many rows were equalised together."""

    masker: Masker
    size: Size
    group: int = 1


def number(name: str, key: str) -> float:
    """The number behind `key` in an entry's name: ``p.65`` -> .65."""
    found = re.search(rf"(?:^|_){key}(\d*\.?\d+)", name)
    assert found, f"no {key}NUMBER in the entry's name {name}"
    return float(found[1])


def case_of(name: str, entry: Mapping[str, Any]) -> Case:
    """The settings of a stored entry, from its `settings` or its name."""
    given: dict[str, Any] = dict(entry.get("settings", {}))
    draws, *shape = entry["stats"]["shape"]
    grid = re.search(r"(\d+)x(\d+)", name)
    size: Size = (int(grid[1]), int(grid[2])) if grid else int(shape[0])
    if name.startswith("v2_"):
        given = {**V2_PUBLISHED["_".join(name.split("_")[1:3])], **given}
        return Case((BlockMask2d if grid else BlockMask1d)(
            prob=given["mask_prob"], adjust=given["mask_prob_adjust"], length=given["mask_length"],
            inverse=given.get("inverse_mask", False), mask_dropout=given.get("mask_dropout", 0.0),
        ), size)  # fmt: skip
    if "beit" in name:
        count = given.get("num_masking_patches", int(name.rsplit("_", 1)[1]))
        return Case(BeitBlockMask(count=count, min_area=given.get("min_num_patches", 16)), size)
    batches = re.search(r"batches_of_(\d+)", name)
    prob = given.get("mask_prob", 0.65 if batches else number(name, "p"))
    length = given.get("mask_length", 10 if batches else int(number(name, "l")))
    if "text" in name:
        return Case(TextMask(prob, length, random_prob=0, keep_prob=0), size)
    same = given.get("require_same_masks", "_same" in name)
    return Case(SpanMask(prob, length), size, (int(batches[1]) if batches else draws) if same else 1)


def run_histogram(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many runs of hidden tokens of each length 1..LONGEST one mask has."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return np.bincount(np.minimum(edges[1::2] - edges[::2], LONGEST), minlength=LONGEST + 1)[1:]


def neighbours(masks: NDArray[np.bool_], size: Size) -> NDArray[np.float64]:
    """For each mask, the share of vertically adjacent pairs of patches with one fate: block shape, which runs miss."""
    grid = masks.reshape(len(masks), *(size if isinstance(size, tuple) else (-1, 1)))
    return (grid[:, 1:] == grid[:, :-1]).mean(axis=(1, 2))


def describe(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(rows, T) -> the numbers that an entry stores: hidden share, first, middle and last rate, runs by length."""
    runs = np.mean([run_histogram(mask) for mask in masks], axis=0)
    where = masks[:, [0, masks.shape[1] // 2, -1]].mean(axis=0)
    return np.concatenate([[masks.mean()], where, runs])


def stored(stats: Mapping[str, Any]) -> NDArray[np.float64]:
    """The same numbers of a stored entry."""
    runs = [stats["run_hist"].get(length, 0) / stats["shape"][0] for length in range(1, LONGEST + 1)]
    rates = [stats[f"{place}_pos_rate"] for place in ("first", "mid", "last")]
    return np.array([stats["mean_masked"], *rates, *runs])


def draw_groups(case: Case, groups: int) -> list[NDArray[np.bool_]]:
    """`groups` arrays (group, T) of our masks."""
    rng = np.random.default_rng(0)
    rows = [[case.masker(rng, case.size) for _ in range(case.group)] for _ in range(groups)]
    return [np.stack(equalize(rng, group) if case.group > 1 else group) for group in rows]


@pytest.fixture(scope="module")
def entries(oracle_dir: Path) -> dict[str, dict[str, Any]]:
    path = oracle_dir / "masks.pt"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {oracle_dir}")
    loaded: dict[str, dict[str, Any]] = torch.load(path, weights_only=True)
    return loaded


def test_statistics_lie_within_sampling_error_of_the_original(entries: dict[str, dict[str, Any]]) -> None:
    compared = 0
    for name, entry in entries.items():
        if "stats" not in entry:
            continue
        case, theirs = case_of(name, entry), stored(entry["stats"])
        ours = draw_groups(case, max(12, 2000 // case.group))
        numbers = np.stack([describe(group) for group in ours])
        their_groups = entry["stats"]["shape"][0] // case.group
        # A length never seen in our draws may still turn up a few times in theirs: no error below that of one event.
        rare = np.array([1e-9] * 4 + [1.0 / entry["stats"]["shape"][0]] * LONGEST)
        error = np.maximum(numbers.std(axis=0, ddof=1) * np.sqrt(1 / their_groups + 1 / len(ours)), rare)
        off = (theirs - numbers.mean(axis=0)) / error
        assert np.abs(off).max() < LIMIT, f"{name}: number {np.abs(off).argmax()} is {np.abs(off).max():.1f} errors off"
        counts = [int(count) for group in ours for count in group.sum(axis=1)]
        if entry["stats"]["std_count"] == 0 and case.group == 1:
            assert set(counts) == {entry["stats"]["min_count"]}, name
        compared += 1
    assert compared, "masks.pt holds no statistics"


def test_sampled_masks_have_the_shape_of_the_original_blocks(entries: dict[str, dict[str, Any]]) -> None:
    for name, entry in entries.items():
        if "stats" not in entry:
            continue
        case = case_of(name, entry)
        theirs = neighbours(entry["sample"].flatten(1).bool().numpy(), case.size)
        ours = neighbours(np.concatenate(draw_groups(case, max(12, 400 // case.group))), case.size)
        error = ours.std(ddof=1) * np.sqrt(1 / len(theirs) + 1 / len(ours))
        assert abs(theirs.mean() - ours.mean()) < LIMIT * error, name


def test_bert_selection_has_the_original_shares(entries: dict[str, dict[str, Any]]) -> None:
    found = [entry for name, entry in entries.items() if "bert" in name]
    if not found:
        pytest.skip("the dump holds no BERT-style entry")
    rng, tokens, draws = np.random.default_rng(0), 512, 1000
    plans = [TextMask().draw(rng, tokens) for _ in range(draws)]
    hidden, replaced, kept = (np.array([part.sum() for part in parts]).sum() for parts in zip(*plans, strict=True))
    selected = hidden + replaced + kept
    for entry in found:
        assert abs(selected / (tokens * draws) - entry["selected"]) < 2e-3  # int(.15 * 512 + U), both sides
        ours = {"masked_given_sel": hidden / selected, "same_given_sel": kept / selected}
        for key, share in ours.items():
            error = np.sqrt(share * (1 - share) / selected * 3.5)  # theirs: 400 draws
            assert abs(share - entry[key]) < LIMIT * error, key

"""The loader: the same data at any number of workers and processes, resume, and bad samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data2vec.data.collate import Collator
from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.data.loader import Loader, Step
from data2vec.data.sampler import BucketSampler
from data2vec.data.skips import SkipLog, Skipped, read_skipped
from data2vec.data.sources import open_loader, open_samples
from data2vec.errors import BadSample, UserError


class Numbers:
    """Sample i holds its number `lengths[i]` times; those in `bad` cannot be read."""

    def __init__(self, lengths: list[int], bad: frozenset[int] = frozenset()) -> None:
        self.lengths = np.array(lengths)
        self.bad = bad

    def sizes(self, epoch: int) -> np.ndarray:
        return self.lengths

    def load(self, index: int, epoch: int, crop: int | None = None) -> dict[str, np.ndarray]:
        if index in self.bad:
            raise BadSample(f"{index}.wav", "is bad")
        return {"input_values": np.full(crop or self.lengths[index], index, dtype=np.float32)}


def coin(rng: np.random.Generator, size: int | tuple[int, int]) -> np.ndarray:
    return rng.random(size) < 0.5


LENGTHS = np.random.default_rng(0).integers(20, 60, 40).tolist()


def loader(samples: Numbers, workers: int = 0, **options: object) -> Loader:
    sampler = BucketSampler(samples.sizes, 400, seed=7, crop=(20, 40))
    config = LoaderConfig(seed=7, workers=workers, prefetch=2)
    return Loader(samples, sampler, Collator(seed=7, masker=coin), config, **options)  # type: ignore[arg-type]


def flat(steps: list[Step]) -> list[tuple[int, int, int, dict[str, list[object]]]]:
    return [
        (step.epoch, step.position, part, {name: tensor.tolist() for name, tensor in batch.items()})
        for step in steps
        for part, batch in enumerate(step.batches)
    ]


def test_workers_change_nothing() -> None:
    plain = flat(list(islice(loader(Numbers(LENGTHS, frozenset({3, 9}))), 12)))
    assert plain == flat(list(islice(loader(Numbers(LENGTHS, frozenset({3, 9})), workers=2), 12)))
    assert {entry[0] for entry in plain} == {0, 1, 2}


def test_processes_and_accumulation_share_the_same_rows() -> None:
    def rows(step: list[Step]) -> list[tuple[float, tuple[bool, ...]]]:
        batches = [batch for s in step for batch in s.batches]
        return sorted(
            (values[0].item(), tuple(mask.tolist()))
            for batch in batches
            for values, mask in zip(batch["input_values"], batch["mask"], strict=True)
        )

    alone = list(islice(loader(Numbers(LENGTHS)), 10))
    ranks = [list(islice(loader(Numbers(LENGTHS), rank=r, world=2, accumulate=2), 10)) for r in range(2)]
    for one, *two in zip(alone, *ranks, strict=True):
        assert rows([one]) == rows(two)
        assert len(two[0].batches) == len(two[1].batches) == 2
        assert (one.epoch, one.position) == (two[0].epoch, two[0].position)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("done", [0, 3, 4, 7])
def test_resume_goes_on_with_the_very_next_step(workers: int, done: int) -> None:
    whole = flat(list(islice(loader(Numbers(LENGTHS)), 10)))
    first = loader(Numbers(LENGTHS), workers)
    for _ in islice(first, done):
        pass
    state = json.loads(json.dumps(first.state_dict()))
    second = loader(Numbers(LENGTHS), workers)
    second.load_state_dict(state)
    assert flat(list(islice(second, 10 - done))) == whole[done:]


def test_one_epoch_shows_every_sample_once_and_moves_nothing() -> None:
    steps = loader(Numbers(LENGTHS))
    seen = [row[0].item() for step in steps.one_epoch(3) for batch in step.batches for row in batch["input_values"]]
    assert sorted(seen) == list(range(40))
    assert steps.state_dict() == {"epoch": 0, "position": 0}
    assert len(steps) == len(list(steps.one_epoch(0)))


def test_iterating_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        next(iter(loader(Numbers(LENGTHS), workers)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_counted_and_written(tmp_path: Path, workers: int) -> None:
    log = SkipLog(40, 0.1, tmp_path / "skipped.jsonl")
    clean = loader(Numbers(LENGTHS))
    steps = loader(Numbers(LENGTHS, frozenset({3, 9})), workers, skips=log)
    for good, step in zip(clean.one_epoch(), steps.one_epoch(), strict=True):
        for one, other in zip(good.batches, step.batches, strict=True):
            assert one["input_values"].shape == other["input_values"].shape
            assert not torch.isin(other["input_values"], torch.tensor([3.0, 9.0])).any()
    list(steps.one_epoch(1))
    assert sorted(read_skipped(tmp_path / "skipped.jsonl")) == [("3.wav", "is bad"), ("9.wav", "is bad")]
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 2


def test_the_share_of_bad_samples_is_limited(tmp_path: Path) -> None:
    log = SkipLog(40, 0.01, tmp_path / "skipped.jsonl")
    with pytest.raises(UserError, match=r"1 of 40 samples cannot be used.*max_bad_share=0\.01"):
        list(loader(Numbers(LENGTHS, frozenset({3})), 1, skips=log).one_epoch())
    assert (tmp_path / "skipped.jsonl").read_text() == '{"path": "3.wav", "reason": "is bad"}\n'


@pytest.mark.parametrize("workers", [0, 1])
def test_all_bad_stops_with_one_line_whatever_the_limit(workers: int) -> None:
    steps = loader(Numbers(LENGTHS, frozenset(range(40))), workers, skips=SkipLog(40, 1.0))
    with pytest.raises(UserError, match="none of the 40 samples") as caught:
        next(iter(steps))
    assert "\n" not in str(caught.value)


def test_user_errors_of_a_worker_stay_one_line() -> None:
    samples = Numbers(LENGTHS)
    sampler = BucketSampler(samples.sizes, 400, crop=(20, 40))
    steps = Loader(samples, sampler, Collator(masker=coin, copies=3), LoaderConfig(workers=1))
    with pytest.raises(UserError, match="exact count") as caught:
        next(iter(steps))
    assert "\n" not in str(caught.value)


def test_too_many_processes_for_a_batch() -> None:
    with pytest.raises(UserError, match="raise the batch size"):
        next(iter(loader(Numbers(LENGTHS), world=50)))


def test_a_log_goes_on_where_it_stood(tmp_path: Path) -> None:
    path = tmp_path / "run" / "skipped.jsonl"
    SkipLog(100, 0.02, path).add([Skipped("a", "x"), Skipped("a", "x")])
    with open(path, "a") as file:
        file.write('{"path": "cut')
    log = SkipLog(100, 0.02, path)
    log.add([Skipped("a", "x")])
    assert log.entries == {"a": "x"}
    log.add([Skipped("b", "y")])
    with pytest.raises(UserError, match="3 of 100"):
        log.add([Skipped("c", "z")])
    with pytest.raises(UserError, match="none of the 1"):
        SkipLog(1, 1.0).add([Skipped("a", "x")])


def audio_files(root: Path) -> AudioDataConfig:
    for index in range(8):
        soundfile.write(root / f"{index}.wav", np.random.default_rng(index).normal(0, 0.1, 3000 + 200 * index), 16_000)
    return AudioDataConfig(min_samples=1000, max_samples=2000, segment_samples=9000, batch_samples=6000)


def image_files(root: Path) -> VisionDataConfig:
    from PIL import Image

    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 255, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
    return VisionDataConfig(image_size=16, batch_images=3)


def text_files(root: Path) -> TextDataConfig:
    for index in range(8):
        (root / f"{index}.txt").write_text(" ".join(f"word{i * index % 7}" for i in range(60)))
    return TextDataConfig(block_size=16, vocab_size=280, batch_tokens=64)


@pytest.mark.parametrize(
    ("make", "field", "bad"),
    [
        (audio_files, "input_values", "bad.wav"),
        (image_files, "pixel_values", "bad.png"),
        (text_files, "input_ids", "bad.txt"),
    ],
)
def test_from_a_folder_to_batches(
    tmp_path: Path, make: Callable[[Path], AudioDataConfig], field: str, bad: str
) -> None:
    source, run = tmp_path / "files", tmp_path / "run"
    source.mkdir()
    config = make(source)
    (source / bad).write_bytes(b"\xff\xfe rubbish \xff")
    grid = (4, 4) if field == "pixel_values" else None
    collate = Collator(masker=coin, token_count=(lambda n: n // 100) if field == "input_values" else None, grid=grid)
    samples = open_samples(source, config, run)
    steps = open_loader(
        samples, config, LoaderConfig(workers=1, max_bad_share=0.2), collate, skipped=run / "skipped.jsonl"
    )
    for step in islice(steps, 2 * len(steps)):
        batch = step.batches[0]
        assert batch["mask"].shape[0] == len(batch[field])
    assert [Path(entry.source).name for entry in read_skipped(run / "skipped.jsonl")] == [bad]
    assert (samples.total, len(list(source.iterdir()))) == (9, 9)
    with pytest.raises(UserError, match="1 of 9"):
        list(open_loader(samples, config, LoaderConfig(workers=0), collate).one_epoch())

"""One call from files and configs to a data set and its loader."""

from __future__ import annotations

from pathlib import Path

from data2vec.data.audio import AudioData, JoinedAudio
from data2vec.data.collate import Collator
from data2vec.data.config import AudioDataConfig, DataConfig, LoaderConfig, VisionDataConfig
from data2vec.data.loader import Loader
from data2vec.data.sampler import BucketSampler
from data2vec.data.skips import SkipLog
from data2vec.data.text import TextData
from data2vec.data.vision import VisionData

Data = AudioData | JoinedAudio | VisionData | TextData


def open_samples(source: str | Path, config: DataConfig, folder: Path, seed: int = 1) -> Data:
    """The data set of `source` for the modality of `config`.

    Args:
        source: folder, manifest, zip or file.
        config: of the modality.
        folder: of the run; lengths, tokens and a trained tokenizer are kept in its ``data`` and found again.
        seed: of crops, augmentation and joins.

    Raises:
        UserError: nothing usable in `source`.
    """
    if isinstance(config, AudioDataConfig):
        clips = AudioData.open(source, config, seed=seed, cache=folder / "data" / "lengths.tsv")
        return JoinedAudio(clips) if config.concatenate else clips
    if isinstance(config, VisionDataConfig):
        return VisionData.open(source, config, seed=seed)
    return TextData.open(source, config, folder / "data")


def open_loader(
    samples: Data,
    config: DataConfig,
    loader: LoaderConfig,
    collate: Collator,
    *,
    skipped: Path | None = None,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
) -> Loader:
    """A loader of `samples`, in the order and under the limits that the configs set.

    Args:
        samples: as `open_samples` returns them.
        config: of the modality.
        loader: of order and workers.
        collate: with the masks of the objective.
        skipped: the ``skipped.jsonl`` to append to.
        rank: this process.
        world: all processes.
        accumulate: micro-batches a step and process.

    Raises:
        UserError: too many of the files cannot be used.
    """
    skips = SkipLog(samples.total, loader.max_bad_share, skipped)
    skips.add(samples.skipped, write=rank == 0)
    crop = None
    if isinstance(config, AudioDataConfig):
        crop = (config.max_samples if config.min_crop is None else config.min_crop, config.max_samples)
    sampler = BucketSampler(
        samples.sizes,
        config.batch_size,
        seed=loader.seed,
        crop=crop,
        bucket_ratio=loader.bucket_ratio,
        drop_last=loader.drop_last,
    )
    return Loader(samples, sampler, collate, loader, rank=rank, world=world, accumulate=accumulate, skips=skips)

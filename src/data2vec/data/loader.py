"""From samples to the micro-batches of one process: workers, resume, and bad samples replaced and reported."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data2vec.data.audio import Sample
from data2vec.data.collate import Row
from data2vec.data.config import LoaderConfig
from data2vec.data.sampler import BucketSampler, GlobalBatch, Ints, split
from data2vec.data.seeds import Stream, generator
from data2vec.data.skips import SkipLog, Skipped
from data2vec.errors import BadSample, UserError

_TRIES = 50
"""Replacements tried for one bad sample before the data set is given up."""


class Samples(Protocol):
    """What a data set is to the loader (`AudioData`, `JoinedAudio`, `VisionData`, `TextData`, or a user's own)."""

    def sizes(self, epoch: int) -> Ints:
        """(samples,) length of each sample of an epoch; ones where all cost the same."""
        ...

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """One sample as named arrays, cut to `crop` where given; raises `BadSample`."""
        ...


class Collate(Protocol):
    """Builds a batch of rows that belong to global batch `position` of `epoch` (`data2vec.data.collate.Collator`)."""

    def __call__(self, rows: Sequence[Row], epoch: int, position: int) -> dict[str, torch.Tensor]:
        """Named tensors, rows first."""
        ...


class Request(NamedTuple):
    """One micro-batch to load: `part` of `parts` of this process's share of a global batch."""

    epoch: int
    position: int
    part: int
    parts: int
    indices: Ints
    crop: int | None


class Loaded(NamedTuple):
    """What a worker sends back; `error` is one line for the user, and then there is no batch."""

    epoch: int
    position: int
    last: bool
    batch: dict[str, torch.Tensor]
    skipped: list[Skipped]
    error: str | None


@dataclass(frozen=True)
class Step:
    """The data of one optimizer step on one process.

    Attributes:
        epoch: from 0.
        position: the global batch's place in its epoch.
        batches: the micro-batches; all processes get the same number.
    """

    epoch: int
    position: int
    batches: list[dict[str, torch.Tensor]]


class Loader:
    """Endless optimizer steps, the same at any number of workers, and over all processes at any number of them.

    Args:
        samples: the data set.
        sampler: the order of its global batches.
        collate: builds batches.
        config: workers and limits.
        rank: this process.
        world: all processes.
        accumulate: micro-batches a step and process (fewer where a batch has too few rows).
        skips: counts the bad samples met and stops the run when they are too many.
    """

    def __init__(
        self,
        samples: Samples,
        sampler: BucketSampler,
        collate: Collate,
        config: LoaderConfig | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        skips: SkipLog | None = None,
    ) -> None:
        self.config = config or LoaderConfig()
        self.sampler = sampler
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.dataset = MicroBatches(samples, collate, self.config.seed)
        self.skips = skips
        self.epoch = 0
        self.position = 0

    def __iter__(self) -> Iterator[Step]:
        """Steps without end, from where the loader stands; `state_dict` counts a step once it is handed out."""
        for step in self._steps(self.sampler.iterate(self.epoch, self.position)):
            self.epoch, self.position = step.epoch, step.position + 1
            yield step

    def one_epoch(self, epoch: int = 0) -> Iterator[Step]:
        """The steps of one epoch from its beginning; does not move the loader."""
        return self._steps(iter(self.sampler.batches(epoch)))

    def __len__(self) -> int:
        """Optimizer steps in the current epoch."""
        return len(self.sampler.batches(self.epoch))

    def state_dict(self) -> dict[str, int]:
        """Where the order stands: enough to go on with the very next step."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a `state_dict`; applies to iterators made afterwards."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _steps(self, batches: Iterator[GlobalBatch]) -> Iterator[Step]:
        first = next(batches, None)  # drawn here, so that an impossible batch size is said before workers start
        if first is None:
            return
        split(first.indices, self.rank, self.world, self.accumulate)
        config = self.config
        fetched: DataLoader[Loaded] = DataLoader(
            self.dataset,
            batch_size=None,
            sampler=_Requests(first, batches, self.rank, self.world, self.accumulate),
            num_workers=config.workers,
            prefetch_factor=config.prefetch if config.workers else None,
            pin_memory=config.pin_memory,
            worker_init_fn=_in_worker,
            generator=torch.Generator(),  # else every new iterator would move the global one, and resume would differ
        )
        held: list[dict[str, torch.Tensor]] = []
        for loaded in fetched:
            if self.skips is not None:
                self.skips.add(loaded.skipped)
            if loaded.error is not None:
                raise UserError(loaded.error)
            held.append(loaded.batch)
            if loaded.last:
                yield Step(loaded.epoch, loaded.position, held)
                held = []


class MicroBatches(Dataset[Loaded]):
    """A map from requests to batches: what a worker does."""

    def __init__(self, samples: Samples, collate: Collate, seed: int) -> None:
        self.samples = samples
        self.collate = collate
        self.seed = seed

    def __getitem__(self, request: Request) -> Loaded:
        skipped: list[Skipped] = []
        batch: dict[str, torch.Tensor] = {}
        error = None
        try:
            rows = [self._row(int(index), request, skipped) for index in request.indices]
            batch = self.collate(rows, request.epoch, request.position)
        except UserError as problem:  # sent back as data: an exception would arrive wrapped in a worker's traceback
            error = str(problem)
        last = request.part + 1 == request.parts
        return Loaded(request.epoch, request.position, last, batch, skipped, error)

    def _row(self, index: int, request: Request, skipped: list[Skipped]) -> Row:
        """Sample `index`, or where it is bad another that is long enough, the same one on every run."""
        try:
            return Row(index, self.samples.load(index, request.epoch, request.crop))
        except BadSample as error:
            skipped.append(Skipped.of(error))
        sizes = self.samples.sizes(request.epoch)
        fitting = np.flatnonzero(sizes >= (request.crop if request.crop is not None else 0))
        rng = generator(Stream.REPLACE, self.seed, request.epoch, index)
        for other in islice(rng.permutation(fitting), _TRIES):
            try:
                return Row(int(other), self.samples.load(int(other), request.epoch, request.crop))
            except BadSample as error:
                skipped.append(Skipped.of(error))
        source, reason = skipped[0]
        raise UserError(f"none of {len(skipped)} samples in a row can be used, e.g. {source}: {reason}")


class _Requests(Sampler[Request]):
    """This process's micro-batches, in order; advanced in the main process, as far ahead as workers prefetch."""

    def __init__(
        self, first: GlobalBatch, batches: Iterator[GlobalBatch], rank: int, world: int, accumulate: int
    ) -> None:
        self.first, self.batches = first, batches
        self.rank, self.world, self.accumulate = rank, world, accumulate

    def __iter__(self) -> Iterator[Request]:
        batch: GlobalBatch | None = self.first
        while batch is not None:
            parts = split(batch.indices, self.rank, self.world, self.accumulate)
            for part, indices in enumerate(parts):
                yield Request(batch.epoch, batch.position, part, len(parts), indices, batch.crop)
            batch = next(self.batches, None)


def _in_worker(worker: int) -> None:
    """The training process decides when to stop, and needs its workers until it has: signals to all are its alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers and Ctrl-C reach the whole process group

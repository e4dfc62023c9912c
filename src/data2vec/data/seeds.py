"""Where randomness in data comes from: generators that depend on (seed, epoch, sample, copy) and nothing else."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What the numbers are for: each purpose has its own, so that using more of one does not shift another."""

    ORDER = 0
    JOIN = 1
    AUGMENT = 2
    MASK = 3
    CORRUPT = 4
    REPLACE = 5
    RATE = 6


def generator(stream: Stream, seed: int, epoch: int, sample: int = 0, copy: int = 0) -> np.random.Generator:
    """The generator for one purpose, the same in every process and at any world size and worker count."""
    key = (int(stream), seed, epoch, sample, copy)
    words = [word for number in key for word in (int(number) & 0xFFFFFFFF, int(number) >> 32)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))

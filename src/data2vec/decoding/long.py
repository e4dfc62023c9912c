"""Long recordings: scored in overlapping chunks, so that memory does not grow with the recording's length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data2vec.errors import UserError
from data2vec.processing.waveform import Wave, audio_info, load_waveform

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """A stretch of a recording that is scored at once, and the frames that are kept of it.

    Attributes:
        start: first sample.
        stop: the sample after its last.
        skip: frames at its beginning that the chunk before has given already.
        keep: frames kept after those; None: all that follow.
    """

    start: int
    stop: int
    skip: int
    keep: int | None


def chunks(samples: int, length: int, context: int, ratio: int) -> Iterator[Chunk]:
    """Cut a recording into chunks that overlap by twice `context`, of which only the middle is kept.

    Frames kept one after the other are exactly the frames of the whole recording: chunks start at whole frames.

    Args:
        samples: of the recording.
        length: samples a chunk, rounded down to whole frames.
        context: samples heard on either side of what is kept, rounded down to whole frames.
        ratio: samples a frame.

    Raises:
        UserError: nothing is left to keep between the contexts.
    """
    length, context = length // ratio * ratio, context // ratio * ratio
    step = length - 2 * context
    if step <= 0:
        raise UserError(f"chunks of {length} samples with {context} of context on both sides keep nothing: raise them")
    start = 0
    while start + length < samples:
        skip = context // ratio if start else 0
        yield Chunk(start, start + length, skip, (length - context) // ratio - skip)
        start += step
    yield Chunk(start, samples, context // ratio if start else 0, None)


def score_chunks(
    score: Callable[[Wave], Frames],
    read: Callable[[int, int], Wave],
    samples: int,
    *,
    length: int,
    context: int,
    ratio: int,
) -> Frames:
    """The frames of a whole recording, chunk by chunk.

    Args:
        score: (samples,) of one chunk to its (frames, V).
        read: (start, stop) to those samples.
        samples: of the recording.
        length: see `chunks`.
        context: see `chunks`.
        ratio: see `chunks`.
    """
    parts = []
    for chunk in chunks(samples, length, context, ratio):
        frames = score(read(chunk.start, chunk.stop))
        stop = None if chunk.keep is None else chunk.skip + chunk.keep
        parts.append(frames[chunk.skip : stop])
    return np.concatenate(parts)


class Recording:
    """A recording that is read piece by piece, normalised as a whole.

    Args:
        source: the file, or its bytes.
        sampling_rate: of what is read.
        normalize: scale to mean 0 and variance 1 over the whole file (read twice, never held).
        eps: added to the variance.
    """

    def __init__(
        self, source: str | Path | bytes, sampling_rate: int, *, normalize: bool = True, eps: float = 1e-7
    ) -> None:
        self.source, self.sampling_rate = source, sampling_rate
        self.samples = audio_info(source).samples(sampling_rate)
        self.mean, self.scale = 0.0, 1.0
        if normalize:
            self.mean, variance = self._moments()
            self.scale = 1 / math.sqrt(variance + eps)

    def read(self, start: int, stop: int) -> Wave:
        """(stop - start,) samples, normalised."""
        wave = load_waveform(self.source, self.sampling_rate, start, stop - start)
        return ((wave - self.mean) * self.scale).astype(np.float32)

    def _moments(self) -> tuple[float, float]:
        total = squares = 0.0
        count, block = 0, 60 * self.sampling_rate
        for start in range(0, self.samples, block):
            wave = load_waveform(self.source, self.sampling_rate, start, min(block, self.samples - start))
            wave = wave.astype(np.float64)
            total, squares, count = total + wave.sum(), squares + (wave**2).sum(), count + len(wave)
        mean = total / max(count, 1)
        return float(mean), float(max(squares / max(count, 1) - mean**2, 0.0))

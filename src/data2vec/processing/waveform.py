"""Audio files as arrays: any container and rate libsndfile reads, one channel, float32."""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data2vec.errors import BadSample

Wave = npt.NDArray[np.float32]
AudioSource = str | Path | bytes | BinaryIO

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"})

_MARGIN = 1024
"""Frames read on either side of a segment that is resampled, so that its edges equal those of the whole file."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        frames: length at the file's own rate.
        rate: frames a second.
        channels: how many are interleaved.
    """

    frames: int
    rate: int
    channels: int

    def samples(self, sampling_rate: int) -> int:
        """Length after resampling to `sampling_rate`, rounded down."""
        return self.frames * sampling_rate // self.rate


def audio_info(source: AudioSource) -> AudioInfo:
    """Read the header only.

    Raises:
        BadSample: the file is missing, empty, or not audio.
    """
    import soundfile

    with _opened(source) as file:
        assert isinstance(file, soundfile.SoundFile)
        return AudioInfo(file.frames, file.samplerate, file.channels)


def load_waveform(source: AudioSource, sampling_rate: int = 16_000, start: int = 0, length: int | None = None) -> Wave:
    """Decode a file, average its channels and resample it.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        sampling_rate: samples a second of the result.
        start: first sample wanted, counted at `sampling_rate`; what lies before it is not decoded.
        length: number of samples wanted, counted at `sampling_rate`; None for all.

    Returns:
        (samples,) float32, full scale = 1. A segment may be shorter than `length` at the end of the file.

    Raises:
        BadSample: the file cannot be decoded, holds no audio there, or holds NaN or infinite values.
    """
    import soundfile

    with _opened(source) as file:
        rate = file.samplerate
        margin = 0 if rate == sampling_rate else _MARGIN
        step = rate // gcd(rate, sampling_rate)  # every `step` frames the two rates have a sample at the same instant
        first = max(0, start * rate // sampling_rate - margin) // step * step
        wanted = -1 if length is None else _ceil_div((start + length) * rate, sampling_rate) + margin - first
        try:
            if first:
                file.seek(min(first, file.frames))
            frames = file.read(wanted, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise BadSample(_name(source), f"cannot be decoded ({error})") from error
    wave = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)
    if not np.isfinite(wave).all():
        raise BadSample(_name(source), "holds NaN or infinite samples")
    if wave.size and rate != sampling_rate:
        wave = resample(wave, rate, sampling_rate)
    offset = start - first * sampling_rate // rate
    wave = wave[offset : None if length is None else offset + length]
    if not wave.size:
        raise BadSample(_name(source), "is empty" if not start else f"ends before sample {start}")
    return np.ascontiguousarray(wave)


def resample(wave: Wave, rate: int, sampling_rate: int) -> Wave:
    """Resample (samples,) or (samples, channels) from `rate` to `sampling_rate` Hz (soxr, high quality)."""
    import soxr

    return np.asarray(soxr.resample(wave, rate, sampling_rate), dtype=np.float32)


def normalize(wave: Wave, eps: float = 1e-5) -> Wave:
    """Scale one whole utterance to mean 0 and variance 1, as ``F.layer_norm(wave, wave.shape)`` does.

    Args:
        wave: (samples,).
        eps: added to the biased variance: 1e-5 in fairseq (``task.normalize``), 1e-7 in the published processor.
    """
    centred = wave - wave.mean(dtype=np.float64)
    scaled: Wave = (centred / np.sqrt(np.mean(centred**2) + eps)).astype(np.float32)
    return scaled


class _opened:
    """A context manager that opens `source` as a ``soundfile.SoundFile`` and turns every failure into `BadSample`."""

    def __init__(self, source: AudioSource) -> None:
        self.source = source

    def __enter__(self):  # type: ignore[no-untyped-def]  # soundfile ships no types
        import soundfile

        source = self.source
        if isinstance(source, (str, Path)) and not Path(source).is_file():
            raise BadSample(source, "no such file")
        if source == b"" or (isinstance(source, (str, Path)) and Path(source).stat().st_size == 0):
            raise BadSample(_name(source), "is empty (0 bytes)")
        try:
            self.file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            reason = getattr(error, "error_string", str(error)).rstrip(". ")
            raise BadSample(_name(source), f"is not audio that libsndfile can read ({reason})") from error
        if self.file.frames <= 0:
            self.file.close()
            raise BadSample(_name(source), "is empty (no samples)")
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _name(source: AudioSource) -> str:
    return str(source) if isinstance(source, (str, Path)) else getattr(source, "name", "<audio bytes>")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)

"""Speech for training: files, segments of long files, or clips joined to longer samples."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data2vec.data.config import AudioDataConfig
from data2vec.data.manifest import Manifest, read_manifest
from data2vec.data.sampler import Ints
from data2vec.data.seeds import Stream, generator
from data2vec.data.skips import Skipped
from data2vec.errors import BadSample
from data2vec.processing.waveform import AUDIO_SUFFIXES, Wave, audio_info, load_waveform, normalize

Sample = dict[str, np.ndarray]


class AudioData:
    """A map from sample ids to waveforms.

    Attributes:
        manifest: the files that can be used.
        skipped: the files that cannot, as their headers show.
        files: (samples,) the row of `manifest` each sample lies in.
        starts: (samples,) where in the file it begins.
        lengths: (samples,) its length; both in samples at the configured rate.
    """

    def __init__(self, manifest: Manifest, lengths: Ints, config: AudioDataConfig, seed: int = 1) -> None:
        assert len(manifest) == len(lengths)
        self.manifest = manifest
        self.config = config
        self.seed = seed
        self.skipped: list[Skipped] = []
        self.files, self.starts, self.lengths = _segments(lengths, config.segment_samples)

    @classmethod
    def open(
        cls, source: str | Path, config: AudioDataConfig, *, seed: int = 1, cache: Path | None = None
    ) -> AudioData:
        """List a source and read the headers, once: `cache` keeps the lengths for the next time.

        Raises:
            UserError: there is no audio in `source`.
        """
        manifest = read_manifest(source, AUDIO_SUFFIXES)
        lengths, skipped = read_lengths(manifest, config.sampling_rate, cache)
        least = 1 if config.concatenate else config.min_samples
        short = (lengths >= 0) & (lengths < least)
        for index in np.flatnonzero(short).tolist():
            seconds = lengths[index] / config.sampling_rate
            reason = f"is too short: {seconds:.2f} s, data.min_samples={least} are {least / config.sampling_rate:.2f} s"
            skipped.append(Skipped(manifest.describe(index), reason))
        good = np.flatnonzero((lengths >= 0) & ~short)
        data = cls(manifest.select(good.tolist()), lengths[good], config, seed)
        data.skipped = skipped
        return data

    @property
    def total(self) -> int:
        """Files, good and bad."""
        return len(self.manifest) + len(self.skipped)

    def sizes(self, epoch: int) -> Ints:
        """(samples,) lengths, for the sampler."""
        return self.lengths

    def describe(self, index: int, epoch: int) -> str:
        """The file a sample is read from."""
        return self.manifest.describe(int(self.files[index]))

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """One sample, normalised, then cut at random to `crop` samples.

        Returns:
            input_values: (crop or all,) float32.

        Raises:
            BadSample: it cannot be decoded, or is shorter than its header says.
        """
        wave = self.wave(index)
        if crop is not None and len(wave) < crop:
            raise BadSample(self.describe(index, epoch), f"holds {len(wave)} samples, fewer than its header says")
        return {"input_values": cut(wave, crop, generator(Stream.AUGMENT, self.seed, epoch, index))}

    def wave(self, index: int) -> Wave:
        """(length,) one whole sample, normalised where configured."""
        row, start, length = int(self.files[index]), int(self.starts[index]), int(self.lengths[index])
        try:
            wave = load_waveform(self.manifest.open(row), self.config.sampling_rate, start, length)
        except BadSample as error:
            raise BadSample(self.manifest.describe(row), error.reason) from error
        return normalize(wave) if self.config.normalize else wave


class JoinedAudio:
    """Short clips joined to samples of at least ``config.concatenate``, in new company every epoch.

    Each clip is normalised by itself and used once an epoch.
    """

    def __init__(self, clips: AudioData) -> None:
        assert clips.config.concatenate is not None
        self.clips = clips
        self.target = clips.config.concatenate
        self._joined: tuple[int, list[Ints]] | None = None

    @property
    def skipped(self) -> list[Skipped]:
        """Files that cannot be used, as their headers show."""
        return self.clips.skipped

    @property
    def total(self) -> int:
        """Files, good and bad."""
        return self.clips.total

    def groups(self, epoch: int) -> list[Ints]:
        """The clips of each sample of an epoch; what is left at the end goes to the last sample."""
        if self._joined is None or self._joined[0] != epoch:
            order = generator(Stream.JOIN, self.clips.seed, epoch).permutation(len(self.clips.lengths))
            self._joined = epoch, _join(order, self.clips.lengths, self.target)
        return self._joined[1]

    def sizes(self, epoch: int) -> Ints:
        """(samples,) lengths in this epoch."""
        return np.array([self.clips.lengths[group].sum() for group in self.groups(epoch)], dtype=np.int64)

    def describe(self, index: int, epoch: int) -> str:
        """The first file of a sample."""
        return self.clips.describe(int(self.groups(epoch)[index][0]), epoch)

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """As `AudioData.load`, of joined clips."""
        wave = np.concatenate([self.clips.wave(int(clip)) for clip in self.groups(epoch)[index]])
        if crop is not None and len(wave) < crop:
            raise BadSample(self.describe(index, epoch), "is shorter than its header says")
        return {"input_values": cut(wave, crop, generator(Stream.AUGMENT, self.clips.seed, epoch, index))}


def cut(wave: Wave, crop: int | None, rng: np.random.Generator) -> Wave:
    """`crop` samples from a random place; all of them for None."""
    if crop is None or crop == len(wave):
        return wave
    start = int(rng.integers(len(wave) - crop + 1))
    return wave[start : start + crop]


def _join(order: Ints, lengths: Ints, target: int) -> list[Ints]:
    groups: list[list[int]] = [[]]
    held = 0
    for clip in order:
        if held >= target:
            groups.append([])
            held = 0
        groups[-1].append(int(clip))
        held += int(lengths[clip])
    if held < target and len(groups) > 1:
        last = groups.pop()
        groups[-1].extend(last)
    return [np.array(group, dtype=np.int64) for group in groups if group]


def _segments(lengths: Ints, longest: int) -> tuple[Ints, Ints, Ints]:
    """Cut each file into the fewest equal parts of at most `longest`: (file, start, length) of each part."""
    parts = np.maximum(1, -(-lengths // longest))
    files = np.repeat(np.arange(len(lengths)), parts)
    part = np.arange(len(files)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = part * lengths[files] // parts[files]
    stops = (part + 1) * lengths[files] // parts[files]
    return files, starts, stops - starts


def read_lengths(manifest: Manifest, sampling_rate: int, cache: Path | None = None) -> tuple[Ints, list[Skipped]]:
    """Length of every file at `sampling_rate`, from its header; -1 where that cannot be read.

    Args:
        manifest: the files.
        sampling_rate: Hz.
        cache: a tsv of ``name, bytes, modified, frames, rate`` that is read first and rewritten when something is new;
            a file that has changed since is read again.

    Returns:
        (files,) lengths, and why those of -1 cannot be used.
    """
    known = _read_cache(cache)
    stamps = [_stamp(manifest, index) for index in range(len(manifest))]
    rows: dict[int, tuple[int, int]] = {}
    skipped: list[Skipped] = []
    todo = []
    for index, (name, stamp) in enumerate(zip(manifest.names, stamps, strict=True)):
        if (name, *stamp) in known:
            rows[index] = known[name, *stamp]
        else:
            todo.append(index)
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for index, answer in zip(todo, pool.map(lambda i: _header(manifest, i), todo), strict=True):
            if isinstance(answer, Skipped):
                skipped.append(answer)
            else:
                rows[index] = answer
    if cache is not None and todo:
        lines = ((manifest.names[i], *stamps[i], *rows[i]) for i in sorted(rows))
        _write_cache(cache, lines)
    lengths = np.full(len(manifest), -1, dtype=np.int64)
    for index, (frames, rate) in rows.items():
        lengths[index] = frames * sampling_rate // rate
    return lengths, skipped


def _header(manifest: Manifest, index: int) -> tuple[int, int] | Skipped:
    try:
        info = audio_info(manifest.open(index))
    except BadSample as error:
        return Skipped(manifest.describe(index), error.reason)
    return info.frames, info.rate


def _stamp(manifest: Manifest, index: int) -> tuple[int, int]:
    try:
        status = os.stat(manifest.root if manifest.zipped else manifest.root / manifest.names[index])
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read_cache(cache: Path | None) -> dict[tuple[str, int, int], tuple[int, int]]:
    known: dict[tuple[str, int, int], tuple[int, int]] = {}
    if cache is None or not cache.is_file():
        return known
    for line in cache.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        name, *numbers = line.split("\t")
        if len(numbers) == 4 and all(number.isdigit() for number in numbers):
            size, modified, frames, rate = map(int, numbers)
            if rate > 0:
                known[name, size, modified] = frames, rate
    return known


def _write_cache(cache: Path, rows: Iterable[tuple[str | int, ...]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    beside = cache.with_name(f"{cache.name}.{os.getpid()}")
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    beside.write_text(text, encoding="utf-8", errors="surrogateescape")
    os.replace(beside, cache)

"""Speech data sets: lengths read once, long files in segments, clips joined, crops seeded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data2vec.data import audio
from data2vec.data.audio import AudioData, JoinedAudio, _join, _segments, cut
from data2vec.data.config import AudioDataConfig
from data2vec.errors import BadSample
from data2vec.processing.waveform import load_waveform, normalize

CONFIG = AudioDataConfig(min_samples=800, max_samples=3200, segment_samples=16_000, batch_samples=16_000)


def write(path: Path, samples: int, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(samples).normal(0.1, 0.1, samples)
    soundfile.write(path, noise, rate)


def test_unusable_files_are_listed_with_reasons(tmp_path: Path) -> None:
    write(tmp_path / "good.wav", 4000)
    write(tmp_path / "slow.wav", 2000, 8000)
    write(tmp_path / "short.wav", 700)
    (tmp_path / "text.wav").write_text("words")
    (tmp_path / "void.flac").write_bytes(b"")
    data = AudioData.open(tmp_path, CONFIG)
    assert data.manifest.names == ["good.wav", "slow.wav"]
    assert data.sizes(0).tolist() == [4000, 4000]
    assert data.total == 5
    reasons = {Path(entry.source).name: entry.reason for entry in data.skipped}
    assert set(reasons) == {"short.wav", "text.wav", "void.flac"}
    assert "0.04 s" in reasons["short.wav"]


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path / "in" / name, 4000)
    read: list[str] = []
    header = audio.audio_info
    monkeypatch.setattr(audio, "audio_info", lambda path: read.append(path.name) or header(path))
    cache = tmp_path / "run" / "lengths.tsv"
    first = AudioData.open(tmp_path / "in", CONFIG, cache=cache)
    assert sorted(read) == ["a.wav", "b.wav", "c.wav"]
    again = AudioData.open(tmp_path / "in", CONFIG, cache=cache)
    assert len(read) == 3
    np.testing.assert_array_equal(first.sizes(0), again.sizes(0))
    write(tmp_path / "in" / "b.wav", 5000)
    cache.write_text(cache.read_text() + "broken line\n")
    assert AudioData.open(tmp_path / "in", CONFIG, cache=cache).sizes(0).tolist() == [4000, 5000, 4000]
    assert read[3:] == ["b.wav"]


def test_a_sample_is_a_crop_of_the_normalised_utterance(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 4000)
    data = AudioData.open(tmp_path, CONFIG, seed=5)
    whole = normalize(load_waveform(tmp_path / "a.wav"))
    piece = data.load(0, epoch=2, crop=1000)["input_values"]
    starts = [s for s in range(3001) if np.array_equal(whole[s : s + 1000], piece)]
    assert len(starts) == 1
    np.testing.assert_array_equal(piece, data.load(0, epoch=2, crop=1000)["input_values"])
    others = {data.load(0, epoch=epoch, crop=1000)["input_values"][0].item() for epoch in range(8)}
    assert len(others) > 4
    np.testing.assert_array_equal(data.load(0, epoch=0)["input_values"], whole)
    raw = AudioData.open(tmp_path, replace(CONFIG, normalize=False))
    np.testing.assert_array_equal(raw.load(0, epoch=0)["input_values"], load_waveform(tmp_path / "a.wav"))


def test_crops_begin_everywhere_alike() -> None:
    wave = np.arange(20, dtype=np.float32)
    rng = np.random.default_rng(0)
    counts = np.bincount([int(cut(wave, 16, rng)[0]) for _ in range(2000)], minlength=5)
    assert len(counts) == 5
    assert counts.min() > 300


def test_a_long_recording_is_several_samples(tmp_path: Path) -> None:
    write(tmp_path / "long.flac", 50_000)
    write(tmp_path / "short.flac", 16_000)
    data = AudioData.open(tmp_path, replace(CONFIG, normalize=False))
    assert data.sizes(0).tolist() == [12_500] * 4 + [16_000]
    joined = np.concatenate([data.load(i, 0)["input_values"] for i in range(4)])
    np.testing.assert_array_equal(joined, load_waveform(tmp_path / "long.flac"))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 300))
def test_segments_cover_each_file_once(lengths: list[int], longest: int) -> None:
    files, starts, sizes = _segments(np.array(lengths), longest)
    assert sizes.max() <= longest
    for file, length in enumerate(lengths):
        mine = files == file
        covered = [s for start, size in zip(starts[mine], sizes[mine], strict=True) for s in range(start, start + size)]
        assert covered == list(range(length))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 120))
def test_joins_use_every_clip_once_and_are_long_enough(lengths: list[int], target: int) -> None:
    order = np.random.default_rng(0).permutation(len(lengths))
    groups = _join(order, np.array(lengths), target)
    assert np.concatenate(groups).tolist() == order.tolist()
    totals = [sum(lengths[i] for i in group) for group in groups]
    assert len(groups) == 1 or min(totals) >= target


def test_joined_clips_are_each_normalised_and_change_company(tmp_path: Path) -> None:
    for index in range(30):
        write(tmp_path / f"{index:02}.wav", 500 + index)
    data = JoinedAudio(AudioData.open(tmp_path, replace(CONFIG, concatenate=3200)))
    assert not data.skipped
    for epoch in range(3):
        sizes = data.sizes(epoch)
        assert sizes.min() >= 3200
        assert sizes.sum() == sum(range(500, 530))
    group = data.groups(1)[2]
    clips = [normalize(load_waveform(tmp_path / f"{clip:02}.wav")) for clip in group]
    np.testing.assert_array_equal(data.load(2, 1)["input_values"], np.concatenate(clips))
    assert len(data.load(2, 1, 3000)["input_values"]) == 3000
    assert [g.tolist() for g in data.groups(0)] != [g.tolist() for g in data.groups(1)]
    again = JoinedAudio(data.clips)
    assert [g.tolist() for g in again.groups(1)] == [g.tolist() for g in data.groups(1)]


def test_a_file_that_changed_into_rubbish_is_bad_when_loaded(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 4000)
    data = AudioData.open(tmp_path, CONFIG)
    write(tmp_path / "a.wav", 900)
    with pytest.raises(BadSample, match="fewer than its header"):
        data.load(0, 0, crop=1000)
    (tmp_path / "a.wav").write_text("words")
    with pytest.raises(BadSample, match="not audio") as caught:
        data.load(0, 0, crop=1000)
    assert caught.value.source == str(tmp_path / "a.wav")


def test_real_digits_in_every_list_form(data_dir: Path) -> None:
    config = AudioDataConfig(max_samples=64_000, concatenate=64_000, batch_samples=256_000)
    by_tsv = AudioData.open(data_dir / "fsdd/train.tsv", config)
    by_csv = AudioData.open(data_dir / "fsdd/metadata.csv", config)
    by_folder = AudioData.open(data_dir / "fsdd", config)
    assert (len(by_tsv.manifest), len(by_csv.manifest), len(by_folder.manifest)) == (1000, 1250, 1250)
    assert not by_folder.skipped
    assert set(by_csv.manifest.columns) >= {"label", "speaker", "split"}
    wave = JoinedAudio(by_tsv).load(0, 0, 64_000)["input_values"]
    assert wave.shape == (64_000,)
    assert 0.8 < wave.std() < 1.2

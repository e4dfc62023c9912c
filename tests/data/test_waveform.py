"""Decoding against what was written; every container, rate and channel count, and files that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from data2vec.errors import BadSample, UserError
from data2vec.processing.waveform import audio_info, load_waveform, normalize


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 440 * time)
    return np.stack([wave * (1 + 0.1 * c) for c in range(channels)], axis=1).astype(np.float32)


def encoded(wave: np.ndarray, rate: int, container: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=container)
    return buffer.getvalue()


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (22050, 1), (44100, 2), (48000, 1)])
def test_every_container_and_rate_gives_the_tone_back(container: str, rate: int, channels: int) -> None:
    data = encoded(tone(1.0, rate, channels), rate, container)
    wave = load_waveform(data)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert abs(len(wave) - 16000) <= 1
    assert audio_info(data).samples(16000) in (len(wave), len(wave) - 1)
    reference = tone(1.0, 16000, channels).mean(axis=1)[: len(wave)]
    middle = slice(2000, 14000)
    assert np.corrcoef(wave[middle], reference[middle])[0, 1] > 0.98  # an MP3 encoder may delay by part of a sample
    assert wave[middle].std() == pytest.approx(reference[middle].std(), rel=0.02)


def test_path_bytes_and_open_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone(0.2, 16000), 16000, "WAV"))
    with open(path, "rb") as file:
        waves = [load_waveform(path), load_waveform(str(path)), load_waveform(path.read_bytes()), load_waveform(file)]
    for wave in waves[1:]:
        np.testing.assert_array_equal(waves[0], wave)


@given(
    rate=st.sampled_from([16000, 8000, 22050, 44100, 11025]),
    start=st.integers(0, 20000),
    length=st.integers(1, 9000),
)
def test_a_segment_equals_the_same_part_of_the_whole(rate: int, start: int, length: int) -> None:
    noise = np.random.default_rng(0).normal(size=2 * rate).astype(np.float32) * 0.1
    data = encoded(noise, rate, "FLAC")
    whole = load_waveform(data)
    segment = load_waveform(data, start=start, length=length)
    np.testing.assert_allclose(segment, whole[start : start + length], atol=1e-6)


def test_normalize_is_layer_norm_over_the_utterance() -> None:
    wave = (np.random.default_rng(1).normal(0.3, 0.01, 5000)).astype(np.float32)
    for eps in (1e-5, 1e-7):
        expected = torch.nn.functional.layer_norm(torch.from_numpy(wave).double(), (5000,), eps=eps)
        np.testing.assert_allclose(normalize(wave, eps), expected.numpy(), atol=1e-5)
    assert not normalize(np.full(100, 0.5, np.float32)).any()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"this is no audio at all" * 20, "not audio"),
        ("half.flac", encoded(tone(1, 16000), 16000, "FLAC")[:40], "half.flac"),
        ("header.wav", encoded(np.zeros((0, 1), np.float32), 16000, "WAV"), "empty"),
    ],
)
def test_what_is_no_audio_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadSample, match=reason) as caught:
        load_waveform(path)
    assert caught.value.source == str(path)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_nan_samples_and_missing_files_are_bad(tmp_path: Path) -> None:
    wave = np.full(1000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(BadSample, match="NaN"):
        load_waveform(tmp_path / "nan.wav")
    with pytest.raises(BadSample, match="no such file"):
        load_waveform(tmp_path / "gone.wav")


def test_a_start_past_the_end_is_bad() -> None:
    with pytest.raises(BadSample, match="ends before"):
        load_waveform(encoded(tone(0.5, 16000), 16000, "WAV"), start=9000)


def test_real_recordings(data_dir: Path) -> None:
    paths = sorted((data_dir / "read_speech_misc").glob("*.wav")) + sorted(
        (data_dir / "ljspeech_sample/wavs").iterdir()
    )
    for path in paths[:10]:
        wave = load_waveform(path)
        assert len(wave) in (audio_info(path).samples(16000), audio_info(path).samples(16000) + 1)
        assert 0.001 < wave.std() < 0.5

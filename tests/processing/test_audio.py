"""The feature extractor: what it takes, that padding changes nothing, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from data2vec import UserError, Wav2Vec2FeatureExtractor
from data2vec.processing.waveform import load_waveform

RATE = 16_000


def noise(length: int, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(length) * scale + 1).astype(np.float32)


@pytest.fixture
def extractor() -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.sampled_from(["left", "right"]), st.booleans())
def test_batch_and_single_results_are_equal(lengths: list[int], side: str, masked: bool) -> None:
    extractor = Wav2Vec2FeatureExtractor(padding_side=side, return_attention_mask=masked)
    clips = [noise(length, seed) for seed, length in enumerate(lengths)]
    batch = extractor(clips, padding=True, sampling_rate=RATE, return_tensors="np")
    assert ("attention_mask" in batch) == masked
    for row, clip in zip(batch.input_values, clips, strict=True):
        alone = extractor(clip, sampling_rate=RATE).input_values[0]
        valid = row[: len(clip)] if side == "right" else row[len(row) - len(clip) :]
        np.testing.assert_array_equal(valid, alone)
        assert np.count_nonzero(row) <= len(clip), "padding is the padding value"
        expected = (clip.astype(np.float64) - clip.mean(dtype=np.float64)) / np.sqrt(clip.var(dtype=np.float64) + 1e-7)
        np.testing.assert_allclose(alone, expected, atol=2e-6)


def test_mask_is_on_by_default_and_compat_is_not() -> None:
    clips = [noise(200), noise(100, 1)]
    batch = Wav2Vec2FeatureExtractor()(clips, padding=True, sampling_rate=RATE, return_tensors="pt")
    assert batch.attention_mask.sum(1).tolist() == [200, 100]
    assert batch.attention_mask.dtype == torch.int32
    like = Wav2Vec2FeatureExtractor(compat="transformers")(clips, padding=True, sampling_rate=RATE, return_tensors="pt")
    assert "attention_mask" not in like
    assert like.input_values[1, 100:].abs().min() > 0.01, "padding took part in the normalisation"


def test_tensors_of_different_length(extractor: Wav2Vec2FeatureExtractor) -> None:
    clips = [noise(200), noise(100, 1)]
    tensors = extractor([torch.from_numpy(clip) for clip in clips], padding=True, sampling_rate=RATE)
    arrays = extractor(clips, padding=True, sampling_rate=RATE)
    for tensor, array in zip(tensors.input_values, arrays.input_values, strict=True):
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor.numpy(), array, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_stay_on_their_device(extractor: Wav2Vec2FeatureExtractor) -> None:
    clips = [torch.from_numpy(noise(200)).cuda(), torch.from_numpy(noise(100, 1)).cuda()]
    batch = extractor(clips, padding=True, sampling_rate=RATE, return_tensors="pt")
    assert batch.input_values.device == batch.attention_mask.device == clips[0].device


def test_tensors_stay_on_a_device_without_data(extractor: Wav2Vec2FeatureExtractor) -> None:
    """The padding of a tensor names no device of its own: shown on one that any machine has."""
    row = torch.ones(3, device="meta")
    assert extractor._fill(row, 8, 0.0).device == row.device
    assert extractor._fill(row, 8, 0.0).shape == (8,)


@pytest.mark.parametrize("wrap", [np.array, list, torch.tensor, lambda x: np.array(x, np.float64)])
def test_kinds_of_one_clip(extractor: Wav2Vec2FeatureExtractor, wrap) -> None:
    clip = noise(50).tolist()
    batch = extractor(wrap(clip), sampling_rate=RATE, return_tensors="pt")
    assert batch.input_values.shape == (1, 50)
    assert batch.input_values.dtype == torch.float32
    np.testing.assert_allclose(
        batch.input_values[0], extractor(np.float32(clip), sampling_rate=RATE).input_values[0], atol=1e-6
    )


def test_integers_silence_and_matrices(extractor: Wav2Vec2FeatureExtractor) -> None:
    pcm = (noise(60) * 1000).astype(np.int16)
    scaled = extractor(pcm / 32768, sampling_rate=RATE).input_values[0]
    np.testing.assert_allclose(extractor(pcm, sampling_rate=RATE).input_values[0], scaled, atol=1e-4)
    assert not extractor(np.zeros(20), sampling_rate=RATE).input_values[0].any()
    assert len(extractor(np.ones((3, 20)), sampling_rate=RATE).input_values) == 3, "a matrix is a batch"


def test_files_and_bytes(extractor: Wav2Vec2FeatureExtractor, stereo_file: Path) -> None:
    expected = load_waveform(stereo_file)
    for source in (stereo_file, str(stereo_file), stereo_file.read_bytes(), io.BytesIO(stereo_file.read_bytes())):
        value = extractor(source, resample=True, mix_down=True).input_values[0]
        assert value.shape == (8000,)
        np.testing.assert_allclose(value, (expected - expected.mean()) / np.sqrt(expected.var() + 1e-7), atol=1e-5)
    with pytest.raises(
        UserError, match=r"stereo.wav: sampling_rate is 8000, the model needs 16000: pass resample=True"
    ):
        extractor(stereo_file, mix_down=True)
    with pytest.raises(UserError, match=r"stereo.wav has 2 channels: pass mix_down=True"):
        extractor(stereo_file, resample=True)


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor])
def test_arrays_of_any_rate_and_channels(extractor: Wav2Vec2FeatureExtractor, stereo_file: Path, wrap) -> None:
    frames, rate = soundfile.read(stereo_file, dtype="float32")
    expected = extractor(stereo_file, resample=True, mix_down=True).input_values[0]
    for stereo in (wrap(frames), wrap(frames.T)):
        value = extractor(stereo, sampling_rate=rate, resample=True, mix_down=True).input_values[0]
        assert isinstance(value, type(stereo))
        np.testing.assert_allclose(np.asarray(value), expected, atol=1e-5)
    with pytest.raises(UserError, match="sampling_rate is 8000"):
        extractor(wrap(frames[:, 0]), sampling_rate=rate)
    with pytest.raises(UserError, match=r"\(4000, 2\).*mix_down=True"):
        extractor(wrap(frames), sampling_rate=RATE)
    with pytest.raises(UserError, match=r"raw_speech\[0\] has shape \(4000, 2\).*mix_down=True"):
        extractor([wrap(frames)], sampling_rate=RATE)


def test_truncation_and_multiples(extractor: Wav2Vec2FeatureExtractor) -> None:
    clips = [noise(90), noise(40, 1)]
    batch = extractor(clips, padding=True, truncation=True, max_length=50, pad_to_multiple_of=32, sampling_rate=RATE)
    assert [len(row) for row in batch.input_values] == [64, 64]
    assert [int(mask.sum()) for mask in batch.attention_mask] == [64, 40]
    with pytest.raises(UserError, match="max_length"):
        extractor(clips, truncation=True, sampling_rate=RATE)
    with pytest.raises(UserError, match="padding='logest'"):
        extractor(clips, padding="logest", sampling_rate=RATE)
    with pytest.raises(UserError, match=r"input_values.*padding=True"):
        extractor(clips, return_tensors="pt", sampling_rate=RATE)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_pad_collates_prepared_clips(extractor: Wav2Vec2FeatureExtractor, kind: type) -> None:
    clips = [noise(90).tolist(), noise(40, 1).tolist()]
    rows = [{"input_values": kind(clip)} for clip in clips]
    batch = extractor.pad(rows, return_tensors="pt")
    assert batch.input_values.shape == (2, 90)
    assert batch.attention_mask.sum(1).tolist() == [90, 40]
    np.testing.assert_allclose(batch.input_values[1, :40], np.float32(clips[1]))
    again = extractor.pad(batch, padding="max_length", max_length=100)
    assert again.attention_mask.sum(1).tolist() == [90, 40], "a mask that came with the clips is kept"
    with pytest.raises(UserError, match="input_values"):
        extractor.pad([{"values": [1.0]}])


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        (np.zeros(0), r"raw_speech\[0\] is empty"),
        ([noise(5), np.zeros(0)], r"raw_speech\[1\] is empty"),
        ([], "no clips"),
        (np.array([0.0, np.nan]), r"raw_speech\[0\] holds NaN"),
        (torch.tensor([0.0, np.inf]), r"raw_speech\[0\] holds NaN or infinite"),
        ([noise(5), None], r"raw_speech\[1\]"),
        (["missing.wav"], "missing.wav: no such file"),
        (b"not sound", "not audio"),
        (np.zeros((2, 3, 4)), r"raw_speech\[0\] has shape \(3, 4\)"),
        (None, "raw_speech is NoneType"),
        (object(), "raw_speech is object"),
    ],
)
def test_bad_sound(extractor: Wav2Vec2FeatureExtractor, speech: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        extractor(speech, sampling_rate=RATE)


def test_rate_is_asked_for(extractor: Wav2Vec2FeatureExtractor) -> None:
    with pytest.warns(UserWarning, match="sampling_rate"):
        extractor(noise(10))
    with pytest.raises(UserError, match="sampling_rate is 8000, the model needs 16000"):
        extractor(noise(10), sampling_rate=8000)


@pytest.mark.parametrize(
    "field",
    [{"sampling_rate": 0}, {"sampling_rate": "16k"}, {"feature_size": 80}, {"padding_side": "up"}, {"compat": "hf"}],
)
def test_bad_fields(field: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(field))}="):
        Wav2Vec2FeatureExtractor(**field)

"""Words in time, subtitles, and long recordings in chunks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data2vec.decoding.ctc import Hypothesis
from data2vec.decoding.long import Recording, chunks, score_chunks
from data2vec.decoding.transcript import Piece, Transcript, subtitles, write_out
from data2vec.errors import UserError
from data2vec.processing.waveform import load_waveform, normalize

FOUND = Hypothesis((2, 3, 1, 1, 2), ((1, 2), (4, 6), (7, 8), (9, 10), (12, 13)), (0.5, 1.0, 1.0, 1.0, 0.8), -1.0)


def test_words_with_times_and_confidence() -> None:
    transcript = write_out(FOUND, ["", "|", "a", "b"], 1, 0.02)
    assert transcript.text == "ab a"
    assert [(w.text, round(w.start, 3), round(w.end, 3), w.confidence) for w in transcript.words] == [
        ("ab", 0.02, 0.12, 0.75),
        ("a", 0.24, 0.26, 0.8),
    ]
    assert "".join(c.text for c in transcript.characters) == "ab  a"
    assert transcript.to_dict()["words"][0] == {"word": "ab", "start": 0.02, "end": 0.12, "confidence": 0.75}


def test_phones_are_words() -> None:
    assert write_out(FOUND, ["", "h#", "sh", "iy"], None, 0.02).text == "sh iy h# h# sh"


def test_subtitles() -> None:
    words = (Piece("hello", 0.5, 0.9, 1), Piece("world", 1.0, 1.4, 1), Piece("again", 3661.0, 3661.5, 1))
    transcript = Transcript("hello world again", words)
    assert subtitles(transcript).splitlines() == [
        "1", "00:00:00,500 --> 00:00:01,400", "hello world", "", "2", "01:01:01,000 --> 01:01:01,500", "again",
    ]  # fmt: skip
    assert subtitles(transcript, "vtt").startswith("WEBVTT\n\n1\n00:00:00.500 --> ")
    assert [line for line in subtitles(transcript, width=5).splitlines() if line.isalpha()] == [
        "hello",
        "world",
        "again",
    ]


def frames_of(wave: np.ndarray, ratio: int, field: int) -> np.ndarray:
    """A stand-in for a model whose frame hears `field` samples: their sum."""
    count = (len(wave) - field) // ratio + 1
    return np.array([[wave[k * ratio : k * ratio + field].sum()] for k in range(count)], dtype=np.float32)


@given(st.integers(50, 3000), st.integers(60, 400), st.integers(0, 20))
def test_chunks_give_the_frames_of_the_whole(samples: int, length: int, context: int) -> None:
    ratio, field = 10, 13
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    whole = frames_of(wave, ratio, field)
    context = max(context, field)
    parts = score_chunks(
        lambda part: frames_of(part, ratio, field),
        lambda start, stop: wave[start:stop],
        samples,
        length=length,
        context=context,
        ratio=ratio,
    )
    np.testing.assert_array_equal(parts, whole)
    assert all(chunk.stop - chunk.start <= length for chunk in chunks(samples, length, context, ratio))


def test_chunks_that_keep_nothing() -> None:
    with pytest.raises(UserError, match="keep nothing"):
        list(chunks(1000, 100, 50, 10))


def test_a_recording_is_normalised_as_a_whole(tmp_path: Path) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(70_000).astype(np.float32) + 0.01
    soundfile.write(tmp_path / "a.wav", wave, 1000)
    recording = Recording(tmp_path / "a.wav", 1000)
    whole = normalize(load_waveform(tmp_path / "a.wav", 1000), eps=1e-7)
    np.testing.assert_allclose(recording.read(65_000, 66_000), whole[65_000:66_000], atol=1e-5)
    plain = Recording(tmp_path / "a.wav", 1000, normalize=False)
    np.testing.assert_array_equal(plain.read(10, 20), load_waveform(tmp_path / "a.wav", 1000)[10:20])

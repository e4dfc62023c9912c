"""Pipelines of sound: from files, bytes and arrays; the same alone and in a batch."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from alike import same

import data2vec
from data2vec.decoding.ctc import greedy, log_softmax
from data2vec.errors import UserError
from data2vec.pipelines.audio import _frames
from data2vec.pipelines.pipeline import pipeline
from data2vec.processing.audio import Wav2Vec2FeatureExtractor

Folder = Callable[..., Path]
CLIPS = [np.random.default_rng(i).standard_normal(n).astype(np.float32) for i, n in enumerate((4000, 900, 2500))]


CASES: list[tuple[str, str, dict[str, Any], list[Any]]] = [
    ("automatic-speech-recognition", "ForCTC", {"return_timestamps": "word"}, CLIPS),
    ("audio-classification", "ForSequenceClassification", {"top_k": 2}, CLIPS),
    ("audio-frame-classification", "ForAudioFrameClassification", {}, CLIPS),
    ("speaker-verification", "ForXVector", {}, [(CLIPS[0], CLIPS[1]), (CLIPS[2], CLIPS[0])]),
    ("feature-extraction", "Model", {}, CLIPS),
]


@pytest.mark.parametrize(("task", "name", "options", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_alone_as_in_a_batch(folder: Folder, task: str, name: str, options: dict[str, Any], inputs: list[Any]) -> None:
    run = pipeline(task, folder(f"Data2VecAudio{name}"), **options)
    together = run(inputs, batch_size=len(inputs))
    same(together, run(inputs, batch_size=1))
    same(together[1], run(inputs[1]))


@pytest.mark.parametrize("name", ["Data2VecAudioForCTC"])
def test_text_is_the_greedy_path_of_the_model(folder: Folder, name: str) -> None:
    run = pipeline("automatic-speech-recognition", folder(name))
    clip = (CLIPS[0] - CLIPS[0].mean()) / np.sqrt(CLIPS[0].var() + 1e-7)
    logits = run.model(torch.from_numpy(clip)[None]).logits[0].detach().numpy()
    path = greedy(log_softmax(logits), 0).symbols
    letters = ["", "", "", "", " ", *"ETAONIS"]
    assert run(CLIPS[0]) == {"text": " ".join("".join(letters[i] for i in path).split())}
    timed = run(CLIPS[0], return_timestamps="char")
    assert "".join(chunk["text"] for chunk in timed["chunks"]).split() == timed["text"].split()
    assert all(0 <= start < end <= 0.25 for start, end in (chunk["timestamp"] for chunk in timed["chunks"]))
    assert set(run(CLIPS[0], beam=4)) == {"text"}


def test_files_bytes_and_arrays_are_the_same(folder: Folder, tmp_path: Path) -> None:
    run = pipeline("audio-classification", folder("Data2VecAudioForSequenceClassification"))
    sound = (CLIPS[0] * 0.1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([sound, sound], 1), 16_000, subtype="FLOAT", format="WAV")
    given = [str(tmp_path / "a.wav"), tmp_path / "a.wav", stereo.getvalue(), sound, torch.from_numpy(sound)]
    given += [{"raw": sound, "sampling_rate": 16_000}, {"array": sound, "sampling_rate": 16_000}]
    answers = run(given, batch_size=3)
    for answer in answers:
        same(answer, answers[0])
    assert [row["score"] for row in answers[0]] == sorted((row["score"] for row in answers[0]), reverse=True)
    assert sum(row["score"] for row in answers[0]) == pytest.approx(1)
    other = run({"raw": sound[::2], "sampling_rate": 8_000})
    assert len(other) == 3


def test_long_recordings_are_heard_in_chunks(folder: Folder) -> None:
    run = pipeline("automatic-speech-recognition", folder("Data2VecAudioForCTC"))
    clip = np.random.default_rng(9).standard_normal(16_000).astype(np.float32)
    limit = (0.5, 0.1)  # 8000 samples, of which 1600 on either side are context

    def score(piece: np.ndarray) -> np.ndarray:
        return run.model(torch.from_numpy(piece)[None]).logits[0].detach().numpy()  # type: ignore[no-any-return]

    with torch.no_grad():
        whole, short = _frames(
            run.model, run.processor.feature_extractor, [clip, clip[:3000]], lambda out: out.logits, limit
        )
    assert len(whole) == run.model.config.frames(16_000)
    np.testing.assert_allclose(short, score(clip[:3000]), atol=1e-5)
    np.testing.assert_allclose(whole[:320], score(clip[:8000])[:320], atol=1e-5)
    np.testing.assert_allclose(whole[320:560], score(clip[4800:12_800])[80:320], atol=1e-5)
    together = run([clip, clip[:3000]], chunk_length_s=0.5, stride_length_s=0.1, batch_size=2)
    assert together == [run(clip, chunk_length_s=0.5, stride_length_s=0.1), run(clip[:3000])]


def test_frames_cover_the_clip_once_when_classes_exclude(folder: Folder) -> None:
    run = pipeline("audio-frame-classification", folder("Data2VecAudioForAudioFrameClassification"))
    found = run(CLIPS[0])
    ends = [0.0, *(stretch["timestamp"][1] for stretch in found)]
    assert [stretch["timestamp"][0] for stretch in found] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(run.model.config.frames(4000) * 20 / 16_000)
    many = folder("Data2VecAudioForAudioFrameClassification", problem_type="multi_label_classification")
    assert pipeline("audio-frame-classification", many)(CLIPS[0], threshold=1.1) == []


def test_speakers(folder: Folder) -> None:
    run = pipeline("speaker-verification", folder("Data2VecAudioForXVector"))
    assert run((CLIPS[0], CLIPS[0])) == {"score": pytest.approx(1), "label": "same"}
    assert run((CLIPS[0], CLIPS[1]), threshold=1.5)["label"] == "different"
    with pytest.raises(UserError, match="pairs"):
        run(CLIPS[0])


def test_device_dtype_objects_and_data2vec_2(folder: Folder) -> None:
    path = folder("Data2VecAudioForSequenceClassification")
    half = pipeline("audio-classification", path, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half(CLIPS[0])[0]["score"] == pytest.approx(
        pipeline("audio-classification", path)(CLIPS[0])[0]["score"], abs=0.02
    )
    config = data2vec.Data2Vec2AudioConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(5, 4), num_conv_pos_embeddings=1, conv_pos_kernel_size=3,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = data2vec.Data2Vec2AudioForSequenceClassification(config).eval()
    run = pipeline("audio-classification", model, processor=Wav2Vec2FeatureExtractor())
    same(run(CLIPS, batch_size=3), run(CLIPS))


def test_what_is_wrong_is_said(folder: Folder, tmp_path: Path) -> None:
    path = folder("Data2VecAudioForCTC")
    run = pipeline("automatic-speech-recognition", path)
    for bad, said in [
        (np.zeros(10, np.float32), "too short"),
        (np.zeros(0, np.float32), "empty"),
        (np.full(900, np.nan, np.float32), "NaN"),
        (tmp_path / "none.wav", "none.wav"),
        (b"no sound", "sound|audio|decod|read"),
        ({"raw": CLIPS[0]}, "sampling_rate"),
    ]:
        with pytest.raises(UserError, match=said):
            run(bad)
    with pytest.raises(UserError, match="no option 'beams'; it knows return_timestamps"):
        run(CLIPS[0], beams=3)
    with pytest.raises(UserError, match="unknown task 'asr'; known: automatic-speech"):
        pipeline("asr", path)
    with pytest.raises(UserError, match="no trained head"):
        pipeline("audio-classification", folder("Data2VecAudioModel"))
    with pytest.raises(UserError, match="pass processor="):
        pipeline("automatic-speech-recognition", run.model)
    with pytest.raises(UserError, match="needs a Data2VecAudioForXVector"):
        pipeline("speaker-verification", run.model)
    with pytest.raises(UserError, match="dtype 'int'"):
        pipeline("automatic-speech-recognition", path, dtype="int")
    with pytest.raises(UserError, match="batch_size"):
        run(CLIPS, batch_size=0)

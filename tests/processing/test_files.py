"""Published files: read, written back with what we do not know, refused when they are of another processor."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest

from data2vec import (
    BeitImageProcessor,
    RobertaTokenizer,
    UserError,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)
from data2vec.hub import resolve

CLASSES = [Wav2Vec2FeatureExtractor, BeitImageProcessor, Wav2Vec2CTCTokenizer, RobertaTokenizer, Wav2Vec2Processor]


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_unknown_fields_are_written_back(tmp_path: Path) -> None:
    source = write(
        tmp_path / "a", preprocessor_config={"sampling_rate": 8000, "future": [1, {"x": None}], "do_normalize": False}
    )
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(source, padding_value=1.0)
    assert (extractor.sampling_rate, extractor.do_normalize, extractor.padding_value) == (8000, False, 1.0)
    extractor.save_pretrained(tmp_path / "b")
    saved = json.loads((tmp_path / "b" / "preprocessor_config.json").read_text())
    assert saved["future"] == [1, {"x": None}]
    assert saved["feature_extractor_type"] == "Wav2Vec2FeatureExtractor"


def test_image_settings_of_every_age(tmp_path: Path) -> None:
    old = {
        "feature_extractor_type": "BeitFeatureExtractor",
        "size": 32,
        "reduce_labels": True,
        "crop_size": 16,
        "odd": 1,
    }
    processor = BeitImageProcessor.from_pretrained(write(tmp_path / "old", preprocessor_config=old))
    assert processor.size == {"height": 32, "width": 32}
    assert processor.do_reduce_labels
    processor.save_pretrained(tmp_path / "new")
    again = BeitImageProcessor.from_pretrained(tmp_path / "new")
    assert again == processor
    assert again.extra == {"odd": 1}
    assert BeitImageProcessor.from_pretrained(tmp_path / "new", size=8).size == {"height": 8, "width": 8}


def test_speech_processor_round_trip(ctc_vocab: dict[str, int], tmp_path: Path) -> None:
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=False)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(ctc_vocab, do_lower_case=True)).save_pretrained(tmp_path)
    processor = Wav2Vec2Processor.from_pretrained(tmp_path)
    assert processor.feature_extractor.to_dict() == extractor.to_dict()
    assert processor.tokenizer.do_lower_case
    assert Wav2Vec2Processor.from_pretrained(tmp_path, compat="transformers").tokenizer.compat == "transformers"
    assert Wav2Vec2Processor.from_pretrained(tmp_path, sampling_rate=16000).feature_extractor.sampling_rate == 16000
    (tmp_path / "preprocessor_config.json").unlink()  # as transformers 5 saves it
    assert Wav2Vec2Processor.from_pretrained(tmp_path).feature_extractor.sampling_rate == 8000


def test_speech_processor_calls(ctc_vocab: dict[str, int]) -> None:
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(ctc_vocab))
    clips = [np.ones(500, np.float32), np.ones(400, np.float32)]
    batch = processor(clips, text=["HI", "YOU"], padding=True, return_tensors="pt", sampling_rate=16000)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_values": (2, 500),
        "attention_mask": (2, 500),
        "labels": (2, 3),
    }
    assert processor(text="HI").input_ids == [11, 10]
    assert processor(clips, sampling_rate=16000, audio_kwargs={"padding": True}).attention_mask[1].sum() == 400
    with pytest.warns(DeprecationWarning, match="text="), processor.as_target_processor():
        assert processor("HI").input_ids == [11, 10]
    rows = [{"input_values": clip} for clip in clips]
    padded = processor.pad(rows, labels=[{"input_ids": [11]}, {"input_ids": [10, 5]}], return_tensors="pt")
    assert padded.labels.tolist() == [[11, 0], [10, 5]]
    assert processor.pad(labels=[{"input_ids": [11]}]).input_ids == [[11]]
    assert processor.batch_decode([[11, 10]]) == [processor.decode([11, 10])] == ["HI"]
    for call in (lambda: processor(), lambda: processor.pad()):
        with pytest.raises(UserError, match="or both"):
            call()
    with pytest.raises(UserError, match="no option samplng_rate"):
        processor(clips, samplng_rate=16000)


@pytest.mark.parametrize(
    ("cls", "files", "message"),
    [
        (
            Wav2Vec2FeatureExtractor,
            {"preprocessor_config": {"image_processor_type": "BeitImageProcessor"}},
            "image_processor_type",
        ),
        (
            Wav2Vec2FeatureExtractor,
            {"preprocessor_config": {"feature_extractor_type": "WhisperFeatureExtractor"}},
            "Whisper",
        ),
        (
            BeitImageProcessor,
            {"preprocessor_config": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}},
            "feature_extractor_type",
        ),
        (BeitImageProcessor, {"processor_config": {"feature_extractor": {}}}, "no 'image_processor' in it"),
        (BeitImageProcessor, {"preprocessor_config": [1]}, "expected a JSON object"),
        (BeitImageProcessor, {"preprocessor_config": "{"}, "not valid JSON"),
        (BeitImageProcessor, {"preprocessor_config": {"size": "wide"}}, "size='wide'"),
        (Wav2Vec2FeatureExtractor, {"preprocessor_config": {"sampling_rate": "16k"}}, "sampling_rate='16k'"),
        (
            Wav2Vec2CTCTokenizer,
            {"vocab": {"a": 0}, "tokenizer_config": {"tokenizer_class": "BertTokenizer"}},
            "tokenizer_class is 'BertTokenizer'",
        ),
        (
            RobertaTokenizer,
            {"vocab": {"a": 0}, "tokenizer_config": {"tokenizer_class": "Wav2Vec2CTCTokenizer"}},
            "tokenizer_class",
        ),
        (Wav2Vec2CTCTokenizer, {"tokenizer_config": {}}, "needs vocab.json"),
        (RobertaTokenizer, {"tokenizer_config": {}}, "vocab: no file"),
        (RobertaTokenizer, {"vocab": {"a": 0}}, "merges: no file"),
        (RobertaTokenizer, {"tokenizer": "{}"}, "tokenizer.json"),
    ],
)
def test_files_of_another_kind(cls: type, files: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        cls.from_pretrained(write(tmp_path / "model", **files))


@pytest.mark.parametrize("cls", CLASSES)
def test_missing_files_and_unknown_options(cls: type, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of .*json"):
        cls.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be a hub id"):
        cls.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"owner/name.*not cached"):
        cls.from_pretrained("owner/name", local_files_only=True, cache_dir=tmp_path)


def test_hub_ids_are_downloaded_and_subfolders_looked_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client is asked for the files alone, with every argument; nothing touches the network."""
    asked = SimpleNamespace()

    def snapshot_download(repo_id: str, **arguments: object) -> str:
        asked.repo_id, asked.arguments = repo_id, arguments
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    write(tmp_path / "speech", preprocessor_config={"sampling_rate": 8000})
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(
        "owner/name", revision="v1", subfolder="speech", token="secret"
    )
    assert extractor.sampling_rate == 8000
    assert asked.repo_id == "owner/name"
    assert asked.arguments["allow_patterns"] == ["speech/preprocessor_config.json", "speech/processor_config.json"]
    assert (asked.arguments["revision"], asked.arguments["token"]) == ("v1", "secret")
    assert resolve("owner/name", "preprocessor_config.json", subfolder="speech").is_file()


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        BeitImageProcessor().save_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        BeitImageProcessor.from_pretrained(tmp_path / "file")

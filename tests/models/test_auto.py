"""The auto classes find what transformers' find, and say what they do not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zoo

import data2vec
from data2vec import UserError
from data2vec.auto import CLASSES

MODELS = [(asked, kind) for asked, found in CLASSES.items() if "Model" in asked for kind in found]
OURS = {"data2vec-audio": "Data2VecAudio", "data2vec-text": "Data2VecText", "data2vec-vision": "Data2VecVision"}


@pytest.mark.parametrize(("asked", "kind"), [pair for pair in MODELS if pair[1] in OURS])
def test_a_checkpoint_finds_its_class(asked: str, kind: str, tmp_path: Path) -> None:
    auto = getattr(data2vec, asked)
    wanted = CLASSES[asked][kind].rpartition(":")[2]
    model = zoo.build(wanted)
    model.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(again).__name__ == wanted
    assert again.config.attn_implementation == "eager"
    assert type(auto.from_config(model.config)).__name__ == wanted
    assert data2vec.AutoConfig.from_pretrained(tmp_path).to_dict() == model.config.to_dict()


def test_every_name_of_the_table_is_public() -> None:
    for asked, found in CLASSES.items():
        assert data2vec._HOME[asked] == "data2vec.auto"
        for place in found.values():
            module, _, name = place.partition(":")
            assert data2vec._HOME[name] == f"data2vec.{module}"


def test_transformers_chooses_the_same() -> None:
    transformers: Any = pytest.importorskip("transformers", minversion="5", reason="the oracle, a dev extra")
    for asked, kind in MODELS:
        if kind in OURS:
            config = transformers.AutoConfig.for_model(kind)
            theirs = getattr(transformers, asked)._model_mapping[type(config)]
            assert theirs.__name__ == CLASSES[asked][kind].rpartition(":")[2]


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        data2vec.AutoModel.from_pretrained(tmp_path)
    for text, words in (("{", "no configuration"), ("{}", "no model_type"), ("[]", "no configuration")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=words):
            data2vec.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="nothing for model_type 'bert'"):
        data2vec.AutoModelForCTC.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="from_pretrained"):
        data2vec.AutoModel()
    assert data2vec.AutoConfig.for_model("data2vec-text", vocab_size=99).vocab_size == 99


def test_processors_are_found_by_their_files(tmp_path: Path) -> None:
    zoo.config("Data2VecAudioModel").save_pretrained(tmp_path)
    extractor = data2vec.Wav2Vec2FeatureExtractor()
    extractor.save_pretrained(tmp_path)
    assert isinstance(data2vec.AutoProcessor.from_pretrained(tmp_path), data2vec.Wav2Vec2FeatureExtractor)
    assert isinstance(data2vec.AutoFeatureExtractor.from_pretrained(tmp_path), data2vec.Wav2Vec2FeatureExtractor)
    tokenizer = data2vec.Wav2Vec2CTCTokenizer({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5})
    data2vec.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    assert isinstance(data2vec.AutoProcessor.from_pretrained(tmp_path), data2vec.Wav2Vec2Processor)
    assert isinstance(data2vec.AutoTokenizer.from_pretrained(tmp_path), data2vec.Wav2Vec2CTCTokenizer)
    images = tmp_path / "images"
    zoo.config("Data2VecVisionModel").save_pretrained(images)
    data2vec.BeitImageProcessor().save_pretrained(images)
    assert isinstance(data2vec.AutoImageProcessor.from_pretrained(images), data2vec.BeitImageProcessor)
    assert isinstance(data2vec.AutoProcessor.from_pretrained(images), data2vec.BeitImageProcessor)

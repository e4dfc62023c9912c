"""The class that a checkpoint needs, by the `model_type` in its ``config.json``. One table says it all."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from data2vec.configuration import CONFIG_FILE, PretrainedConfig
from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS, resolve

AUDIO, TEXT, VISION = "data2vec-audio", "data2vec-text", "data2vec-vision"
AUDIO2, TEXT2, VISION2 = "data2vec2-audio", "data2vec2-text", "data2vec2-vision"

CLASSES: dict[str, dict[str, str]] = {  # what is asked for -> model type -> module and class
    "AutoConfig": {
        AUDIO: "models.audio.config:Data2VecAudioConfig",
        TEXT: "models.text.config:Data2VecTextConfig",
        VISION: "models.vision.config:Data2VecVisionConfig",
        AUDIO2: "models.v2.config:Data2Vec2AudioConfig",
        TEXT2: "models.v2.config:Data2Vec2TextConfig",
        VISION2: "models.v2.config:Data2Vec2VisionConfig",
    },
    "AutoModel": {
        AUDIO: "models.audio.model:Data2VecAudioModel",
        TEXT: "models.text.model:Data2VecTextModel",
        VISION: "models.vision.model:Data2VecVisionModel",
        AUDIO2: "models.v2.audio:Data2Vec2AudioModel",
        TEXT2: "models.v2.text:Data2Vec2TextModel",
        VISION2: "models.v2.vision:Data2Vec2VisionModel",
    },
    "AutoModelForPreTraining": {TEXT: "models.text.heads:Data2VecTextForMaskedLM"},
    "AutoModelForCTC": {
        AUDIO: "models.audio.heads:Data2VecAudioForCTC",
        AUDIO2: "models.v2.heads:Data2Vec2AudioForCTC",
    },
    "AutoModelForAudioClassification": {
        AUDIO: "models.audio.heads:Data2VecAudioForSequenceClassification",
        AUDIO2: "models.v2.heads:Data2Vec2AudioForSequenceClassification",
    },
    "AutoModelForAudioFrameClassification": {
        AUDIO: "models.audio.heads:Data2VecAudioForAudioFrameClassification",
        AUDIO2: "models.v2.heads:Data2Vec2AudioForAudioFrameClassification",
    },
    "AutoModelForAudioXVector": {
        AUDIO: "models.audio.heads:Data2VecAudioForXVector",
        AUDIO2: "models.v2.heads:Data2Vec2AudioForXVector",
    },
    "AutoModelForMaskedLM": {TEXT: "models.text.heads:Data2VecTextForMaskedLM"},
    "AutoModelForCausalLM": {TEXT: "models.text.heads:Data2VecTextForCausalLM"},
    "AutoModelForSequenceClassification": {
        TEXT: "models.text.heads:Data2VecTextForSequenceClassification",
        TEXT2: "models.v2.heads:Data2Vec2TextForSequenceClassification",
    },
    "AutoModelForMultipleChoice": {
        TEXT: "models.text.heads:Data2VecTextForMultipleChoice",
        TEXT2: "models.v2.heads:Data2Vec2TextForMultipleChoice",
    },
    "AutoModelForTokenClassification": {
        TEXT: "models.text.heads:Data2VecTextForTokenClassification",
        TEXT2: "models.v2.heads:Data2Vec2TextForTokenClassification",
    },
    "AutoModelForQuestionAnswering": {
        TEXT: "models.text.heads:Data2VecTextForQuestionAnswering",
        TEXT2: "models.v2.heads:Data2Vec2TextForQuestionAnswering",
    },
    "AutoModelForImageClassification": {
        VISION: "models.vision.heads:Data2VecVisionForImageClassification",
        VISION2: "models.v2.heads:Data2Vec2VisionForImageClassification",
    },
    "AutoModelForSemanticSegmentation": {
        VISION: "models.vision.heads:Data2VecVisionForSemanticSegmentation",
        VISION2: "models.v2.heads:Data2Vec2VisionForSemanticSegmentation",
    },
    "AutoProcessor": {
        AUDIO: "processing.speech:Wav2Vec2Processor",
        TEXT: "processing.text:RobertaTokenizerFast",
        VISION: "processing.vision:BeitImageProcessor",
        AUDIO2: "processing.speech:Wav2Vec2Processor",
        TEXT2: "processing.text:RobertaTokenizerFast",
        VISION2: "processing.vision:BeitImageProcessor",
    },
    "AutoTokenizer": {
        AUDIO: "processing.ctc:Wav2Vec2CTCTokenizer",
        TEXT: "processing.text:RobertaTokenizerFast",
        AUDIO2: "processing.ctc:Wav2Vec2CTCTokenizer",
        TEXT2: "processing.text:RobertaTokenizerFast",
    },
    "AutoFeatureExtractor": {
        AUDIO: "processing.audio:Wav2Vec2FeatureExtractor",
        AUDIO2: "processing.audio:Wav2Vec2FeatureExtractor",
    },
    "AutoImageProcessor": {
        VISION: "processing.vision:BeitImageProcessor",
        VISION2: "processing.vision:BeitImageProcessor",
    },
}


def find(asked: str, model_type: str) -> Any:
    """The class that stands for `asked` (``"AutoModelForCTC"``) with models of `model_type`."""
    found = CLASSES[asked].get(model_type)
    if found is None:
        raise UserError(f"{asked} has nothing for model_type {model_type!r}; it knows {', '.join(CLASSES[asked])}")
    module, _, name = found.partition(":")
    return getattr(import_module(f"data2vec.{module}"), name)


def model_type(source: str | Path, **hub: Any) -> str:
    """`model_type` of the ``config.json`` in a folder or on the hub."""
    file = resolve(source, CONFIG_FILE, **hub)
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is no configuration: {error}") from error
    if not isinstance(kind, str):
        raise UserError(f"{file} names no model_type, so its class is not known: load it with the class itself")
    return kind


class _Auto:
    """Base: `from_pretrained` looks up the class that the subclass's name and the checkpoint ask for."""

    def __init__(self) -> None:
        raise UserError(f"{type(self).__name__} builds other classes: call its from_pretrained")

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Any:
        """Load from a folder or the hub; `options` go to the class that is found.

        Args:
            source: folder or hub id.
            options: see that class's ``from_pretrained``.
        """
        config = options.get("config")
        hub = {key: value for key, value in options.items() if key in HUB_ARGUMENTS}
        kind = config.model_type if isinstance(config, PretrainedConfig) else model_type(source, **hub)
        return find(cls.__name__, kind).from_pretrained(source, **options)


class AutoConfig(_Auto):
    """The configuration of any checkpoint."""

    @classmethod
    def for_model(cls, kind: str, **fields: Any) -> Any:
        """A new configuration of model type `kind`."""
        return find(cls.__name__, kind)(**fields)


class _AutoModel(_Auto):
    """Base of the models."""

    @classmethod
    def from_config(cls, config: PretrainedConfig, **options: Any) -> Any:
        """A newly initialised model for a configuration."""
        return find(cls.__name__, config.model_type).from_config(config, **options)


class AutoModel(_AutoModel):
    """The base model."""


class AutoModelForPreTraining(_AutoModel):
    """What transformers offers under this name: the masked language model."""


class AutoModelForCTC(_AutoModel):
    """Speech recognition."""


class AutoModelForAudioClassification(_AutoModel):
    """One class a clip."""


class AutoModelForAudioFrameClassification(_AutoModel):
    """One class a frame."""


class AutoModelForAudioXVector(_AutoModel):
    """Speaker embeddings."""


class AutoModelForMaskedLM(_AutoModel):
    """Masked tokens."""


class AutoModelForCausalLM(_AutoModel):
    """Writing text."""


class AutoModelForSequenceClassification(_AutoModel):
    """One class a text."""


class AutoModelForMultipleChoice(_AutoModel):
    """The best of several texts."""


class AutoModelForTokenClassification(_AutoModel):
    """One class a token."""


class AutoModelForQuestionAnswering(_AutoModel):
    """Answers within a text."""


class AutoModelForImageClassification(_AutoModel):
    """One class an image."""


class AutoModelForSemanticSegmentation(_AutoModel):
    """One class a pixel."""


class AutoProcessor(_Auto):
    """What turns raw input into a model's: for speech with a vocabulary both of its parts, else the extractor."""

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Any:
        """Load from a folder or the hub; `options` go to the class that is found.

        Args:
            source: folder or hub id.
            options: see that class's ``from_pretrained``.
        """
        hub = {key: value for key, value in options.items() if key in HUB_ARGUMENTS}
        if model_type(source, **hub) == AUDIO and not _has_vocabulary(source, **hub):
            return AutoFeatureExtractor.from_pretrained(source, **options)
        return super().from_pretrained(source, **options)


def _has_vocabulary(source: str | Path, **hub: Any) -> bool:
    try:
        resolve(source, "vocab.json", **hub)
    except UserError:
        return False
    return True


class AutoTokenizer(_Auto):
    """The tokenizer."""


class AutoFeatureExtractor(_Auto):
    """What prepares waveforms."""


class AutoImageProcessor(_Auto):
    """What prepares images."""

"""Frozen features of a saved model: its folder and labelled files in, probes' scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec.data.labelled.arrow import arrow_tables
from data2vec.data.labelled.example import Example, Splits, divide, opened, split_files
from data2vec.data.labelled.files import read_classes
from data2vec.data.labelled.text import read_texts
from data2vec.data.manifest import read_text
from data2vec.data.text import TEXT_SUFFIXES
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.probe import ProbeResult, extract_features, knn_probe, linear_probe
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.encoder import Encoder
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.pixels import IMAGE_SUFFIXES, load_image
from data2vec.processing.text import RobertaTokenizer
from data2vec.processing.vision import BeitImageProcessor
from data2vec.processing.waveform import AUDIO_SUFFIXES, Wave, load_waveform

_MODELS: dict[str, type[PreTrainedModel]] = {
    "data2vec-audio": Data2VecAudioModel,
    "data2vec-vision": Data2VecVisionModel,
    "data2vec-text": Data2VecTextModel,
    "data2vec2-audio": Data2Vec2AudioModel,
    "data2vec2-vision": Data2Vec2VisionModel,
    "data2vec2-text": Data2Vec2TextModel,
}
Item = str | Path | bytes
"""A text, a file, or the bytes of one."""
Prepare = Callable[[Sequence[Any]], dict[str, Tensor]]


@dataclass(frozen=True)
class Probes:
    """Scores on the held-out items.

    Attributes:
        linear: logistic regression.
        neighbours: vote of the nearest training items.
        items: training and held-out items.
        classes: how many there are.
    """

    linear: ProbeResult
    neighbours: ProbeResult
    items: tuple[int, int]
    classes: int


@dataclass(frozen=True)
class Frozen:
    """A model with what prepares its input.

    Attributes:
        model: the encoder.
        prepare: what `read` made of items -> a batch.
        suffixes: endings of the files it reads.
        text: it reads texts, from tables too.
        read: an item (a text or a pair of texts, a file, the bytes of one) -> what `prepare` takes; raises `BadSample`.
    """

    model: PreTrainedModel
    prepare: Prepare
    suffixes: frozenset[str]
    text: bool = False
    read: Callable[[Any], Any] = lambda item: item


def open_frozen(folder: str | Path) -> Frozen:
    """A model of any modality from its folder or hub id.

    Raises:
        UserError: no model, or of a kind that has no probe.
    """
    config = Path(folder) / "config.json"
    kind = json.loads(read_text(config)).get("model_type") if config.is_file() else None
    if kind not in _MODELS:
        raise UserError(f"{folder}: no config.json of a data2vec model there; give the folder `model` of a run")
    model = _MODELS[kind].from_pretrained(folder)
    match model.config:
        case Data2VecAudioConfig():
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
            waves = partial(_wave, sampling_rate=extractor.sampling_rate, least=model.config.receptive_field)
            return Frozen(model, _audio(extractor), AUDIO_SUFFIXES, read=waves)
        case Data2VecVisionConfig():
            return Frozen(model, _vision(BeitImageProcessor.from_pretrained(folder)), IMAGE_SUFFIXES, read=load_image)
        case Data2VecTextConfig() as text:
            tokenizer = RobertaTokenizer.from_pretrained(folder)
            return Frozen(model, _text(tokenizer, text.max_length), TEXT_SUFFIXES, text=True, read=_words)
    raise AssertionError(kind)


def probe_folder(frozen: Frozen, source: Path, *, column: str = "label", batch_size: int = 16, seed: int = 0) -> Probes:
    """Linear and k-NN probe of frozen features on labelled files.

    Args:
        frozen: as `open_frozen` returns it.
        source: see `labelled_items`.
        column: of a table, the labels.
        batch_size: items a forward pass.
        seed: of the cross-validation and, where the source has no split, of the held-out items.

    Raises:
        UserError: what `source` lacks, or a file that cannot be read.
    """
    splits = labelled_items(frozen, source, column=column, seed=seed)
    data: list[Any] = []
    for side in (splits.train, splits.dev):
        data += [features_of(frozen, side, batch_size), [example.target for example in side]]
    return Probes(
        linear=linear_probe(*data, seed=seed),
        neighbours=knn_probe(*data, seed=seed),
        items=(len(splits.train), len(splits.dev)),
        classes=len({example.target for example in splits.train}),
    )


def labelled_items(frozen: Frozen, source: Path, *, column: str = "label", seed: int = 0) -> Splits:
    """What `source` holds that the model reads, each with one class; a fifth is held out where the source does not say.

    Args:
        frozen: a model with what prepares its input.
        source: of texts, see `data2vec.data.labelled.text.read_texts`; of files, and of a folder of text files a
            class, `data2vec.data.labelled.files.read_classes`.
        column: of a table, the labels.
        seed: of the held-out items.

    Raises:
        UserError: a row or a label is missing, or a side is empty.
    """
    tables = (".tsv", ".csv", ".jsonl")
    table = source.suffix.lower() in tables or bool(arrow_tables(source) or split_files(source, tables))
    read = read_texts if frozen.text and table else partial(read_classes, suffixes=frozen.suffixes)
    splits = divide(read(source, label=column), seed=seed)
    several = next((example for example in splits.all if not isinstance(example.target, str)), None)
    if several is not None:
        raise UserError(f"{several.source}: has several labels; a probe needs one class")
    return splits


def untrained(frozen: Frozen, seed: int = 0) -> Frozen:
    """The same network before any training: what a probe has to beat."""
    torch.manual_seed(seed)
    return replace(frozen, model=type(frozen.model)(frozen.model.config))


def features_of(frozen: Frozen, part: Sequence[Example], batch_size: int = 16) -> dict[str, NDArray[np.float32]]:
    """One vector an item, (N, D), by name: see `data2vec.evaluation.probe.extract_features`."""
    assert isinstance(frozen.model, Encoder)
    return extract_features(frozen.model, _batches(frozen, part, batch_size))


def _batches(frozen: Frozen, part: Sequence[Example], batch_size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(part), batch_size):
        yield frozen.prepare([_read(frozen, example) for example in part[start : start + batch_size]])


def _read(frozen: Frozen, example: Example) -> Any:
    """What `prepare` takes of an example; raises `BadSample` with the example's name, where the bytes have none."""
    item = example.input
    try:
        return frozen.read(item if isinstance(item, str | tuple) else opened(item))
    except BadSample as error:
        raise BadSample(example.source, error.reason) from error


def _audio(extractor: Wav2Vec2FeatureExtractor) -> Prepare:
    rate = extractor.sampling_rate
    return lambda waves: dict(extractor(list(waves), padding=True, sampling_rate=rate, return_tensors="pt"))


def _vision(processor: BeitImageProcessor) -> Prepare:
    return lambda images: dict(processor(list(images), return_tensors="pt"))


def _text(tokenizer: RobertaTokenizer, longest: int) -> Prepare:
    return lambda texts: dict(
        tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    )


def _wave(item: Item, sampling_rate: int, least: int) -> Wave:
    """A clip that has a frame at least: in a batch, one that has none would come out as NaN."""
    wave = load_waveform(item, sampling_rate)
    if len(wave) < least:
        name = "<audio bytes>" if isinstance(item, bytes) else item
        raise BadSample(name, f"is too short: {len(wave)} samples, the model needs {least}")
    return wave


def _words(item: Item | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(item, bytes):
        return item.decode("utf-8-sig", errors="replace")
    return read_text(item) if isinstance(item, Path) else item

"""Sound as a model takes it: files to arrays, cuts and augmentation shared by the speech tasks; and clip classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.audio import read_audio_classes
from data2vec.data.labelled.example import Example, Read, opened
from data2vec.decoding.long import Chunk, Recording, chunks
from data2vec.errors import BadSample
from data2vec.evaluation.metrics import Confusion
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.heads import Data2VecAudioForSequenceClassification
from data2vec.models.v2.heads import Data2Vec2AudioForSequenceClassification
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.waveform import Wave, audio_info, load_waveform, resample
from data2vec.tasks.classify import Answers
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, load_model, mean_loss, rows_of, soft_cross_entropy

FILLS: Mapping[str, float] = {"input_values": 0.0, "labels": -100}


def clip_length(file: Any, sampling_rate: int) -> int:
    """Samples of a file at the model's rate, from its header; raises `BadSample`."""
    return audio_info(opened(file)).samples(sampling_rate)


def read_clip(
    file: Any, extractor: Wav2Vec2FeatureExtractor, rng: Rng = None, augment: AugmentConfig | None = None
) -> Wave:
    """(samples,) of a file, augmented and normalised; raises `BadSample`."""
    wave = load_waveform(opened(file), extractor.sampling_rate)
    if rng is not None and augment is not None:
        wave = disturb(wave, augment, rng)
    return prepare(wave, extractor)


def prepare(wave: Wave, extractor: Wav2Vec2FeatureExtractor) -> Wave:
    """A waveform as the model reads it."""
    batch = extractor(wave, sampling_rate=extractor.sampling_rate, return_attention_mask=False, return_tensors="np")
    ready: Wave = batch["input_values"][0]
    return ready


@lru_cache(maxsize=8)
def _recording(file: Any, sampling_rate: int, normalize: bool) -> Recording:
    return Recording(opened(file), sampling_rate, normalize=normalize)


def read_window(file: Any, window: Chunk, extractor: Wav2Vec2FeatureExtractor) -> Wave:
    """A part of a recording, normalised as the whole is; raises `BadSample`."""
    recording = _recording(file, extractor.sampling_rate, extractor.do_normalize)
    return recording.read(window.start, window.stop)


def windows(samples: int, model: PreTrainedModel, sampling_rate: int, seconds: float) -> list[Chunk]:
    """A recording in parts of at most `seconds`, a sixth of which is heard on either side of what is kept."""
    ratio: int = model.config.inputs_to_logits_ratio
    length = max(int(seconds * sampling_rate), model.config.receptive_field)
    return [Chunk(0, samples, 0, None)] if samples <= length else list(chunks(samples, length, length // 6, ratio))


def join_frames(items: Sequence[Item], answers: Sequence[Any]) -> npt.NDArray[np.float32]:
    """(frames, classes) of a whole recording, from those of its windows (the `part` of each item)."""
    kept = []
    for item, frames in zip(items, answers, strict=True):
        window: Chunk = item.part
        stop = None if window.keep is None else window.skip + window.keep
        kept.append(frames[window.skip : stop])
    return np.concatenate(kept)


def frame_rows(output: Any) -> list[npt.NDArray[np.float32]]:
    """A head's scores (B, T, C) as one array a row, without padded frames."""
    rows = rows_of(output.logits)
    mask = getattr(output, "frame_mask", None)
    return rows if mask is None else [row[valid.cpu().numpy()] for row, valid in zip(rows, mask, strict=True)]


def disturb(wave: Wave, augment: AugmentConfig, rng: np.random.Generator) -> Wave:
    """Another speed (and pitch), and white noise."""
    if augment.speed:
        rate = round(1000 * rng.uniform(1 - augment.speed, 1 + augment.speed))
        wave = resample(wave, rate, 1000) if rate != 1000 else wave
    if augment.noise:
        level = float(np.sqrt(np.mean(wave.astype(np.float64) ** 2))) * 10 ** (-rng.uniform(augment.noise, 60) / 20)
        wave = wave + level * rng.standard_normal(len(wave), dtype=np.float32)
    return wave


class AudioClassification:
    """One class a clip: a word, a speaker, a language, an emotion."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-audio": Data2VecAudioForSequenceClassification,
        "data2vec2-audio": Data2Vec2AudioForSequenceClassification,
    }
    fills = FILLS
    own_loss = False

    def __init__(self, model: PreTrainedModel, extractor: Wav2Vec2FeatureExtractor) -> None:
        self.model, self.extractor = model, extractor
        self.answer = Answers.of_model(model)
        self.metric = self.answer.metric

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the classes of the training examples."""
        answers = Answers.of_examples(train, data.problem, data.min_per_class)
        model = load_model(cls.classes, source, scratch=scratch, **answers.fields, **fields)
        return cls(model, Wav2Vec2FeatureExtractor.from_pretrained(source))

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), Wav2Vec2FeatureExtractor.from_pretrained(folder))

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Labelled clips."""
        return read_audio_classes(source, label=data.label or "label")

    @staticmethod
    def example(file: str) -> Example:
        """A file to predict."""
        return Example(file, Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a clip."""
        least = self.model.config.receptive_field
        for example in examples:
            try:
                size = clip_length(example.input, self.extractor.sampling_rate)
            except BadSample as error:
                yield error
                continue
            if size < least:
                yield BadSample(example.source, f"is too short: {size} samples, the model needs {least}")
            else:
                yield self.answer.check(example) or Item(example, size)

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_values (samples,) float32 and labels."""
        sample: Sample = {"input_values": read_clip(item.example.input, self.extractor, rng, augment)}
        if item.example.target is not None:
            sample["labels"] = self.answer.encode(item.example.target, soft=bool(augment and augment.soft))
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy, a clip counts 1."""
        return classification_loss(self.answer, output, batch["labels"])

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each clip."""
        return rows_of(output.logits)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The most probable class."""
        return self.answer.predict(answers[0])

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy, macro F1, Matthews."""
        return self.answer.score(examples, predictions)

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion | None:
        """How often each class was taken for which."""
        return self.answer.confusion(examples, predictions)

    def save_processor(self, folder: Path) -> None:
        """The feature extractor."""
        self.extractor.save_pretrained(folder)


def classification_loss(answers: Answers, output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count over rows; `output` has no loss where labels are distributions over classes."""
    if output.loss is None:
        return soft_cross_entropy(output.logits, labels)
    return mean_loss(output, torch.tensor(float(len(labels)), device=labels.device))

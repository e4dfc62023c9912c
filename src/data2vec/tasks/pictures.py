"""Pictures as a model takes them, and one class a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.augment import erase, rand_augment
from data2vec.data.labelled.example import Example, Read, opened
from data2vec.data.labelled.images import read_image_classes
from data2vec.data.vision import flip, random_resized_crop, shift
from data2vec.errors import BadSample
from data2vec.evaluation.metrics import Confusion
from data2vec.modeling import PreTrainedModel
from data2vec.models.v2.heads import Data2Vec2VisionForImageClassification
from data2vec.models.vision.heads import Data2VecVisionForImageClassification
from data2vec.processing.pixels import load_image
from data2vec.processing.vision import BeitImageProcessor
from data2vec.tasks.classify import Answers
from data2vec.tasks.clips import classification_loss
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, load_model, rows_of


def read_picture(file: Any) -> Image.Image:
    """An RGB picture; raises `BadSample`."""
    return load_image(opened(file))


def vary(image: Image.Image, size: int, augment: AugmentConfig, rng: np.random.Generator) -> Image.Image:
    """A picture as training shows it, about `size` pixels on a side."""
    if augment.images == "crop_flip":
        image = flip(random_resized_crop(image, size, augment.crop_scale, rng), rng)
    elif augment.images == "tiny":
        image = image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        image = shift(flip(image, rng), size // 8, rng)
    return rand_augment(image, augment.rand_augment, augment.magnitude, rng) if augment.rand_augment else image


class ImageClassification:
    """One class a picture."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-vision": Data2VecVisionForImageClassification,
        "data2vec2-vision": Data2Vec2VisionForImageClassification,
    }
    fills: Mapping[str, float] = {}
    own_loss = False

    def __init__(self, model: PreTrainedModel, processor: BeitImageProcessor) -> None:
        self.model, self.processor = model, processor
        self.answer = Answers.of_model(model)
        self.metric = self.answer.metric
        self.size: int = model.config.image_shape[0]

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the classes of the training examples."""
        answers = Answers.of_examples(train, data.problem, data.min_per_class)
        model = load_model(cls.classes, source, scratch=scratch, **answers.fields, **fields)
        return cls(model, BeitImageProcessor.from_pretrained(source))

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), BeitImageProcessor.from_pretrained(folder))

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Labelled pictures."""
        return read_image_classes(source, label=data.label or "label")

    @staticmethod
    def example(file: str) -> Example:
        """A file to predict."""
        return Example(file, Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a picture; a damaged file shows when it is decoded."""
        for example in examples:
            yield self.answer.check(example) or Item(example, 1)

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """pixel_values (3, height, width) and labels."""
        image = read_picture(item.example.input)
        if rng is not None and augment is not None:
            image = vary(image, self.size, augment, rng)
        sample: Sample = {"pixel_values": self.processor(image, return_tensors="np")["pixel_values"][0]}
        if rng is not None and augment is not None and rng.random() < augment.erasing:
            sample["pixel_values"] = erase(sample["pixel_values"], rng)
        if item.example.target is not None:
            sample["labels"] = self.answer.encode(item.example.target, soft=bool(augment and augment.soft))
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy; a picture counts 1."""
        return classification_loss(self.answer, output, batch["labels"])

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each picture."""
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
        """The image processor."""
        self.processor.save_pretrained(folder)

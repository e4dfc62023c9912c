"""One class a pixel, for pictures of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data2vec.auto import AutoConfig
from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.images import Palette, read_masks, read_palette
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.metrics import Confusion, pixel_confusion
from data2vec.modeling import PreTrainedModel
from data2vec.models.v2.heads import Data2Vec2VisionForSemanticSegmentation
from data2vec.models.vision.heads import Data2VecVisionForSemanticSegmentation
from data2vec.outputs import SemanticSegmenterOutput
from data2vec.processing.pixels import BICUBIC, shown_size
from data2vec.processing.vision import BeitImageProcessor
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.pictures import read_picture
from data2vec.tasks.task import Item, Prediction, Rng, label_fields, label_names, load_model, mean_loss, rows_of

_IGNORED = 255
_PALETTE = "label_map"
"""Key of config.json: the value of label maps that is left out."""
_SCALES = (0.5, 2.0)
_LONGEST = 4
"""Times the shorter side: attention over the patches of a longer strip would take minutes."""


class SemanticSegmentation:
    """A map of classes a picture.

    Pictures are resized so that the shorter side has `data.image_size` pixels; training shows random square parts of
    that size at half to twice the scale, mirrored in half of the cases. What is longer than four times its shorter side
    is squeezed to that. Answers have the size of the file.
    """

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-vision": Data2VecVisionForSemanticSegmentation,
        "data2vec2-vision": Data2Vec2VisionForSemanticSegmentation,
    }
    fills: Mapping[str, float] = {}
    metric = "mean_iou"
    own_loss = False

    def __init__(self, model: PreTrainedModel, processor: BeitImageProcessor) -> None:
        self.model, self.processor = model, processor
        model.register_forward_pre_hook(_any_size, with_kwargs=True)
        self.names = label_names(model)
        self.ignored = int(model.config.extra.get(_PALETTE, _IGNORED))
        size = processor.size
        self.short: int = size.get("shortest_edge") or min(size["height"], size["width"])

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the classes of the label maps."""
        palette = _palette(train)
        processor = BeitImageProcessor.from_pretrained(source)
        model = load_model(
            cls.classes, source, scratch=scratch, **{**label_fields(palette.names), **_blocks(source), **fields}
        )
        model.config.extra[_PALETTE] = palette.ignored
        processor.size = {"shortest_edge": data.image_size or model.config.image_shape[0]}
        return cls(model, processor)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), BeitImageProcessor.from_pretrained(folder))

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Pictures with label maps."""
        return read_masks(source)

    @staticmethod
    def example(file: str) -> Example:
        """A file to predict."""
        return Example(file, Path(file))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a picture; `part` is its size (height, width)."""
        for example in examples:
            try:
                with Image.open(example.input) as image:
                    width, height = shown_size(image)
                if example.target is not None and not train:
                    self.label_map(example)
            except OSError as error:
                yield BadSample(example.source, f"cannot be read ({error})")
                continue
            except BadSample as error:
                yield error
                continue
            yield Item(example, 1, (height, width))

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """pixel_values (3, h, w), and labels (h, w) int64, 255 where nothing is known, to train on."""
        image = read_picture(item.example.input)
        if rng is None:
            return {"pixel_values": self._pixels(self._resized(image))}
        labels = Image.fromarray(self.label_map(item.example).astype(np.uint8))
        image, labels = self._part(image, labels, rng)
        return {"pixel_values": self._pixels(image), "labels": np.asarray(labels, dtype=np.int64)}

    def label_map(self, example: Example) -> npt.NDArray[np.int64]:
        """The true classes of an example's pixels (height, width), 255 where they do not count; raises `BadSample`."""
        try:
            with Image.open(example.target) as image:
                labels = np.asarray(ImageOps.exif_transpose(image))
        except OSError as error:
            raise BadSample(example.target, f"cannot be read ({error})") from error
        if labels.ndim != 2:
            raise BadSample(example.target, f"is a picture of mode {image.mode}: a label map has one number a pixel")
        found = np.where(labels == self.ignored, _IGNORED, labels).astype(np.int64)
        strange = found[(found >= len(self.names)) & (found != _IGNORED)]
        if len(strange):
            raise BadSample(example.target, f"has the class {strange[0]}; the classes are 0 to {len(self.names) - 1}")
        return found

    def _resized(self, image: Image.Image, scale: float = 1.0) -> Image.Image:
        short = scale * self.short
        share = short / min(image.size)
        width, height = (round(min(side * share, short * _LONGEST)) for side in image.size)
        return image.resize((width, height), BICUBIC)

    def _part(
        self, image: Image.Image, labels: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, Image.Image]:
        """A square of `short` pixels from anywhere in the picture, at some scale; outside of it is black and 255."""
        low, high = np.log(_SCALES)
        image = self._resized(image, float(np.exp(rng.uniform(low, high))))
        labels = labels.resize(image.size, Image.Resampling.NEAREST)
        left, top = (int(rng.integers(min(0, n - self.short), max(0, n - self.short) + 1)) for n in image.size)
        box = (left, top, left + self.short, top + self.short)
        square = Image.new("L", (self.short, self.short), _IGNORED)
        square.paste(labels, (-left, -top))
        image = image.crop(box)
        if rng.random() < 0.5:
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            return image.transpose(flip), square.transpose(flip)
        return image, square

    def _pixels(self, image: Image.Image) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[np.float32] = self.processor(image, do_resize=False, return_tensors="np")["pixel_values"][0]
        return pixels

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy with the auxiliary head's; a pixel counts 1."""
        return mean_loss(output, (batch["labels"] != _IGNORED).sum())

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores at a quarter of a patch."""
        return rows_of(output.logits)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """``map`` (height, width) of classes in the size of the file, and each class's share of it."""
        logits = SemanticSegmenterOutput(None, torch.from_numpy(answers[0])[None])
        (found,) = self.processor.post_process_semantic_segmentation(logits, [items[0].part])
        labels = found.numpy().astype(np.uint8)
        counts = np.bincount(labels.ravel(), minlength=len(self.names)) / labels.size
        shares = {name: round(float(share), 4) for name, share in zip(self.names, counts, strict=True) if share}
        return {"map": labels, "shares": shares}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Mean intersection over union, right pixels, and each class's intersection over union."""
        confusion = self.confusion(examples, predictions)
        each = {f"iou_{name}": float(value) for name, value in zip(self.names, confusion.iou, strict=True)}
        return {"mean_iou": confusion.mean_iou, "pixel_accuracy": confusion.accuracy, **each}

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion:
        """Pixel by pixel, over all pictures."""
        counts = np.zeros((len(self.names),) * 2, dtype=np.int64)
        for example, prediction in zip(examples, predictions, strict=True):
            counts += pixel_confusion(self.label_map(example), prediction["map"], len(self.names), _IGNORED)
        return Confusion(tuple(self.names), counts)

    def save_processor(self, folder: Path) -> None:
        """The image processor."""
        self.processor.save_pretrained(folder)


def _any_size(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A forward pass that stretches absolute positions over pictures of another size than the model's."""
    return positional, {**named, "interpolate_pos_encoding": True}


def _palette(train: Sequence[Example]) -> Palette:
    """The classes that the data name, or those that occur in the training maps."""
    folder = Path(train[0].target)
    for parent in list(folder.parents)[:4]:
        if (palette := read_palette(parent)) is not None:
            return palette
    largest = 0
    for example in train:
        with Image.open(example.target) as image:
            values = np.unique(np.asarray(image))
        largest = max(largest, int(values[values != _IGNORED].max(initial=0)))
    if largest < 1:
        raise UserError(f"{folder}: the label maps hold one class only")
    return Palette(tuple(f"class{number}" for number in range(largest + 1)))


def _blocks(source: str | Path) -> dict[str, Any]:
    """Four blocks for the head to read, evenly spread, where the model is not as deep as the published ones."""
    depth = AutoConfig.from_pretrained(source).num_hidden_layers
    return {} if depth >= 12 else {"out_indices": tuple(max(0, round(depth * part / 4) - 1) for part in (1, 2, 3, 4))}

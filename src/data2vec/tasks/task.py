"""What every downstream task answers, and what several of them share."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example
from data2vec.errors import BadSample, UserError
from data2vec.hub import resolve
from data2vec.modeling import PreTrainedModel
from data2vec.tasks.config import AugmentConfig

Prediction = dict[str, Any]
"""JSON values; "source" names the example."""
Rng = np.random.Generator | None
"""None: no augmentation."""


@dataclass(frozen=True, slots=True)
class Item:
    """What makes one row of a batch: an example, or a window of one.

    Attributes:
        example: it comes from.
        size: what it costs, in samples, tokens or images.
        part: what `Downstream.encode` needs beside the example.
        key: rows of one key are the same: one of them is enough for an answer; None is no other's.
    """

    example: Example
    size: int
    part: Any = None
    key: Hashable = None


LOWER_IS_BETTER = frozenset(
    {
        *("wer", "wer_low", "wer_high", "cer", "per", "per_low", "per_high"),
        *("der", "missed", "false_alarm", "confused", "der_collar", "der_single_speaker"),
        *("eer", "min_dcf", "mse", "loss", "perplexity"),
    }
)
"""Metrics that count errors."""


class Downstream(Protocol):
    """A task with its model and its processor.

    Attributes:
        model: with the head.
        metric: the score that picks the best model; see `LOWER_IS_BETTER`.
        fills: what pads a field whose rows differ in length; empty: only rows with the same `Item.part` go together.
        own_loss: `loss` needs the scores only: the head is not given the labels.
    """

    model: PreTrainedModel
    metric: str
    fills: Mapping[str, float]
    own_loss: bool

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterable[Item | BadSample]:
        """Rows of the examples, or why one cannot be used."""
        ...

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """One row as arrays, labels included where the example has them; raises `BadSample`."""
        ...

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum and count of the loss of a batch, from the head's output."""
        ...

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """What the head says about each row, on the CPU."""
        ...

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The answer for one example, from those of its rows."""
        ...

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """The metrics, best known first; `metric` is among them."""
        ...

    def save_processor(self, folder: Path) -> None:
        """Write what prepares the input beside the model."""
        ...


# Models


def model_type(source: str | Path) -> str:
    """The kind of model in a folder or at a hub id."""
    path = resolve(source, "config.json")
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type", "")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a readable config.json: {error}") from error
    return str(kind)


def load_model(
    classes: Mapping[str, type[PreTrainedModel]], source: str | Path, *, scratch: bool = False, **fields: Any
) -> PreTrainedModel:
    """The model of a task.

    Args:
        classes: model type -> class with the task's head.
        source: folder or hub id of an encoder (the head is new) or of a fine-tuned model.
        scratch: fresh weights of the same architecture.
        fields: of its configuration to change.

    Raises:
        UserError: no model there, or one of a kind that has no such head.
    """
    kind = model_type(source)
    if kind not in classes:
        raise UserError(f"{source} is a model of type {kind!r}; this task needs {' or '.join(classes)}")
    cls = classes[kind]
    config = cls.config_class.from_pretrained(source, **fields)
    return cls(config) if scratch else cls.from_pretrained(source, config=config)


def label_fields(names: Sequence[str]) -> dict[str, Any]:
    """The configuration's fields for these classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def label_names(model: PreTrainedModel) -> list[str]:
    """The names of a model's classes, by number."""
    names: dict[int, str] = model.config.id2label or {}
    return [names[index] for index in sorted(names)]


def order_labels(labels: Iterable[str]) -> list[str]:
    """Classes in the order of their numbers: as numbers where all are, else alphabetical."""
    found = set(labels)
    return sorted(found, key=int) if all(label.isdigit() for label in found) else sorted(found)


# Losses


def mean_loss(output: Any, count: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count, for a head whose loss is a mean over `count` labels."""
    count = count.to(torch.float32)
    return output.loss.float() * count, count


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count of cross-entropy against distributions (B, C)."""
    total = F.cross_entropy(logits.float(), labels.float(), reduction="sum")
    return total, torch.tensor(float(len(labels)), device=logits.device)


# Batches


def collate(samples: Sequence[Sample], fills: Mapping[str, float]) -> dict[str, Tensor]:
    """Rows to a batch: stacked, or padded at the end of every axis; ``attention_mask`` of what a model reads.

    The mask is there only where rows differ in length.

    Raises:
        AssertionError: rows of a field without a fill differ in shape.
    """
    batch: dict[str, Tensor] = {}
    for name in samples[0]:
        arrays = [sample[name] for sample in samples]
        if len({array.shape for array in arrays}) == 1:
            batch[name] = torch.from_numpy(np.stack(arrays))
            continue
        assert name in fills, f"{name} differs in shape between rows"
        shape = tuple(max(lengths) for lengths in zip(*(array.shape for array in arrays), strict=True))
        out = np.full((len(arrays), *shape), fills[name], dtype=arrays[0].dtype)
        mask = np.zeros(out.shape, dtype=np.int64)
        for row, array in enumerate(arrays):
            place = tuple(slice(length) for length in array.shape)
            out[row][place], mask[row][place] = array, 1
        batch[name] = torch.from_numpy(out)
        if name.startswith("input_"):
            batch["attention_mask"] = torch.from_numpy(mask)
    return batch


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Over the last axis."""
    x = np.asarray(logits, dtype=np.float64)
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = x / x.sum(axis=-1, keepdims=True)
    return shares


def rows_of(tensor: Tensor) -> list[npt.NDArray[np.float32]]:
    """(B, ...) as one array a row."""
    return list(tensor.detach().float().cpu().numpy())


OpenTask = Callable[..., Downstream]

"""One answer an example: a class, several labels, or a value; for clips, texts and pictures alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data2vec.data.labelled.example import Example
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.metrics import Confusion, multilabel_f1, pearson, spearman
from data2vec.modeling import PreTrainedModel
from data2vec.tasks.task import Prediction, label_fields, label_names, order_labels, softmax

Problem = Literal["single_label", "multi_label", "regression"]
_KINDS: Mapping[str, Problem] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
_PUBLISHED = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Answers:
    """The space of answers.

    Attributes:
        problem: what kind of answer.
        names: of the classes, by number; one name for a value.
    """

    problem: Problem
    names: tuple[str, ...]

    @classmethod
    def of_examples(cls, examples: Sequence[Example], problem: str = "", min_per_class: int = 1) -> Answers:
        """From the training examples.

        Raises:
            UserError: there is one class only, or a class has too few examples.
        """
        kind = problem or _guess(examples)
        if kind == "regression":
            return cls("regression", ("value",))
        counts: dict[str, int] = {}
        for example in examples:
            for label in _labels(example.target):
                counts[label] = counts.get(label, 0) + 1
        few = [name for name, count in counts.items() if count < min_per_class]
        if few:
            raise UserError(
                f"class {few[0]!r} has {counts[few[0]]} examples to train on, data.min_per_class={min_per_class}"
            )
        if len(counts) < 2:
            raise UserError(f"the training examples are all labelled {', '.join(counts)}: two classes are needed")
        return cls("multi_label" if kind == "multi_label" else "single_label", tuple(order_labels(counts)))

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> Answers:
        """Of a model that was fine-tuned."""
        names = tuple(label_names(model))
        kind = model.config.problem_type or ("regression" if len(names) == 1 else "single_label_classification")
        return cls(_KINDS[kind], names)

    @property
    def fields(self) -> dict[str, Any]:
        """Of the model's configuration."""
        return {**label_fields(self.names), "problem_type": _PUBLISHED[self.problem]}

    def check(self, example: Example) -> BadSample | None:
        """Why an example's label cannot be used."""
        if example.target is None:
            return None
        if self.problem == "regression":
            ok = number(example.target) is not None
            return None if ok else BadSample(example.where, f"the label {example.target!r} is no number")
        strange = next((label for label in _labels(example.target) if label not in self.names), None)
        if strange is None:
            return None
        return BadSample(example.where, f"the label {strange!r} is none of the training data: {_some(self.names)}")

    def encode(self, target: Any, soft: bool = False) -> npt.NDArray[Any]:
        """A label as the model reads it: () int64; or (C,) float32 where there are several, or with `soft`."""
        if self.problem == "regression":
            return np.array([number(target)], dtype=np.float32)
        if self.problem == "single_label" and not soft:
            return np.array(self.names.index(target), dtype=np.int64)
        row = np.zeros(len(self.names), dtype=np.float32)
        row[[self.names.index(label) for label in _labels(target)]] = 1
        return row

    def predict(self, logits: npt.NDArray[Any]) -> Prediction:
        """The answer that (C,) scores say."""
        if self.problem == "regression":
            return {"value": float(logits[0])}
        if self.problem == "multi_label":
            shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
            chosen = [name for name, share in zip(self.names, shares, strict=True) if share >= 0.5]
        else:
            shares = softmax(logits)
        scores = {name: round(float(share), 5) for name, share in zip(self.names, shares, strict=True)}
        if self.problem == "multi_label":
            return {"labels": chosen, "scores": scores}
        best = self.names[int(shares.argmax())]
        return {"label": best, "score": scores[best], "scores": scores}

    @property
    def metric(self) -> str:
        """What picks the best model."""
        return {"regression": "pearson", "multi_label": "micro_f1", "single_label": "accuracy"}[self.problem]

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy, F1 and Matthews; micro and macro F1; or correlations."""
        if self.problem == "regression":
            truth = np.array([number(example.target) for example in examples], dtype=np.float64)
            values = np.array([prediction["value"] for prediction in predictions])
            error = float(((truth - values) ** 2).mean())
            return {"pearson": pearson(truth, values), "spearman": spearman(truth, values), "mse": error}
        if self.problem == "multi_label":
            rows = [self.encode(example.target) > 0 for example in examples]
            given = [self.encode(tuple(prediction["labels"])) > 0 for prediction in predictions]
            return multilabel_f1(np.array(rows), np.array(given))
        confusion = self.confusion(examples, predictions)
        assert confusion is not None
        return {"accuracy": confusion.accuracy, "macro_f1": confusion.macro_f1, "matthews": confusion.matthews}

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion | None:
        """How often each class was taken for which; None where an answer is not one class."""
        if self.problem != "single_label":
            return None
        truth = [example.target for example in examples]
        return Confusion.of(truth, [prediction["label"] for prediction in predictions], self.names)


def number(text: Any) -> float | None:
    """A label as a finite number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _labels(target: Any) -> tuple[str, ...]:
    return target if isinstance(target, tuple) else (target,)


def _guess(examples: Sequence[Example]) -> Problem:
    """Several labels where a row has a tuple; values where labels are numbers, but for a few, some with a fraction."""
    if any(isinstance(example.target, tuple) for example in examples):
        return "multi_label"
    numbers = [number(example.target) for example in examples]
    fractions = any(value is not None and value != int(value) for value in numbers)
    return "regression" if fractions and numbers.count(None) <= len(numbers) // 10 else "single_label"


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

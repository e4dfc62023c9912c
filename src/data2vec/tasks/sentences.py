"""Text as a model takes it, and one answer a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.text import read_texts
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.metrics import Confusion
from data2vec.modeling import PreTrainedModel
from data2vec.models.text.heads import Data2VecTextForSequenceClassification
from data2vec.models.v2.heads import Data2Vec2TextForSequenceClassification
from data2vec.processing.text import RobertaTokenizer
from data2vec.tasks.classify import Answers
from data2vec.tasks.clips import classification_loss
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.task import Item, Prediction, Rng, load_model, rows_of


def load_tokenizer(source: str | Path) -> RobertaTokenizer:
    """The tokenizer beside a text model."""
    return RobertaTokenizer.from_pretrained(source)


def text_fills(tokenizer: RobertaTokenizer) -> Mapping[str, float]:
    """What pads a batch of tokens."""
    pad = tokenizer.pad_token_id
    assert pad is not None
    return {"input_ids": pad, "labels": -100}


def longest(model: PreTrainedModel, wanted: int = 0) -> int:
    """Tokens a row: as many as asked for, or as the model has positions."""
    most: int = model.config.max_length
    if wanted > most:
        raise UserError(f"data.max_length={wanted}: the model has positions for {most} tokens")
    return wanted or most


def hide(
    ids: npt.NDArray[np.int64], tokenizer: RobertaTokenizer, rng: Rng, augment: AugmentConfig | None
) -> npt.NDArray[np.int64]:
    """Ids (L,) to train on: each token is hidden with probability `augment.hide`; special ones stay."""
    if rng is None or augment is None or not augment.hide:
        return ids
    if (mask := tokenizer.mask_token_id) is None:
        raise UserError(f"augment.hide={augment.hide}: the tokenizer has no mask token")
    hidden = (rng.random(len(ids)) < augment.hide) & ~np.isin(ids, tokenizer.all_special_ids)
    return np.where(hidden, mask, ids)


class TextClassification:
    """A class, several labels or a value, of a text or a pair of texts."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-text": Data2VecTextForSequenceClassification,
        "data2vec2-text": Data2Vec2TextForSequenceClassification,
    }
    own_loss = False

    def __init__(self, model: PreTrainedModel, tokenizer: RobertaTokenizer, data: LabelledConfig | None = None) -> None:
        data = data or LabelledConfig()
        self.model, self.tokenizer, self.lowercase = model, tokenizer, data.lowercase
        self.longest = longest(model, data.max_length)
        self.fills = text_fills(tokenizer)
        self.answer = Answers.of_model(model)
        self.metric = self.answer.metric

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the answers of the training examples."""
        answers = Answers.of_examples(train, data.problem, data.min_per_class)
        model = load_model(cls.classes, source, scratch=scratch, **answers.fields, **fields)
        return cls(model, load_tokenizer(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), load_tokenizer(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Labelled texts."""
        return read_texts(source, texts=data.texts, label=data.label, separator=data.separator)

    @staticmethod
    def example(text: str) -> Example:
        """A text to predict; a tab parts a pair."""
        first, tab, second = text.partition("\t")
        return Example(text, (first, second) if tab else first)

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a text, cut to the longest the model takes."""
        texts = [example.input for example in examples]
        if self.lowercase:
            texts = [text.lower() if isinstance(text, str) else tuple(t.lower() for t in text) for text in texts]
        rows = self.tokenizer(texts, truncation=True, max_length=self.longest)["input_ids"] if texts else []
        for example, text, ids in zip(examples, texts, rows, strict=True):
            if not all(part.strip() for part in ([text] if isinstance(text, str) else text)):
                yield BadSample(example.source, "is empty")
            else:
                yield self.answer.check(example) or Item(example, len(ids), np.array(ids, dtype=np.int64))

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids (tokens,) and labels."""
        sample: Sample = {"input_ids": hide(item.part, self.tokenizer, rng, augment)}
        if item.example.target is not None:
            sample["labels"] = self.answer.encode(item.example.target, soft=bool(augment and augment.soft))
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy or squared error; a text counts 1."""
        return classification_loss(self.answer, output, batch["labels"])

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each text."""
        return rows_of(output.logits)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The answer of the highest score."""
        return self.answer.predict(answers[0])

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Of classes, of several labels, or of values."""
        return self.answer.score(examples, predictions)

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion | None:
        """How often each class was taken for which."""
        return self.answer.confusion(examples, predictions)

    def save_processor(self, folder: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save_pretrained(folder)

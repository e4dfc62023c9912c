"""One class a word: names, parts of speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.text import read_tagged
from data2vec.errors import BadSample
from data2vec.evaluation.metrics import Confusion
from data2vec.evaluation.spans import name_spans, span_f1, spans
from data2vec.modeling import PreTrainedModel
from data2vec.models.text.heads import Data2VecTextForTokenClassification
from data2vec.models.v2.heads import Data2Vec2TextForTokenClassification
from data2vec.processing.text import RobertaTokenizer
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.sentences import hide, load_tokenizer, longest, text_fills
from data2vec.tasks.task import Item, Prediction, Rng, label_fields, label_names, load_model, mean_loss, rows_of

_IGNORED = -100


class TokenClassification:
    """A tag a word, read from the word's first piece. A long sentence is several rows."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-text": Data2VecTextForTokenClassification,
        "data2vec2-text": Data2Vec2TextForTokenClassification,
    }
    own_loss = False

    def __init__(self, model: PreTrainedModel, tokenizer: RobertaTokenizer, data: LabelledConfig | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        data = data or LabelledConfig()
        self.longest, self.lowercase = longest(model, data.max_length), data.lowercase
        self.fills = text_fills(tokenizer)
        self.names = label_names(model)
        self.spans = name_spans(self.names)
        self.metric = "f1" if self.spans else "accuracy"

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head for the tags of the training sentences."""
        names = sorted({tag for example in train for tag in example.target}, key=lambda tag: (tag != "O", tag))
        model = load_model(cls.classes, source, scratch=scratch, **label_fields(names), **fields)
        return cls(model, load_tokenizer(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), load_tokenizer(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Tagged sentences."""
        return read_tagged(source)

    @staticmethod
    def example(text: str) -> Example:
        """Words with spaces between."""
        return Example(text, tuple(text.split()))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """As many rows as a sentence's pieces need; `part` is ids and the word of each piece (-1: no first piece)."""
        words = [[w.lower() for w in e.input] if self.lowercase else list(e.input) for e in examples]
        batch = self.tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=self.longest, return_overflowing_tokens=True
        )
        rows: dict[int, list[int]] = {}
        for row, place in enumerate(batch["overflow_to_sample_mapping"]):
            rows.setdefault(place, []).append(row)
        for place, example in enumerate(examples):
            if not any(word.strip() for word in example.input):
                yield BadSample(example.source, "is empty")
                continue
            strange = next((tag for tag in example.target or () if tag not in self.names), None)
            if strange is not None:
                yield BadSample(example.source, f"the tag {strange!r} is none of the training data")
                continue
            seen = -1
            for row in rows[place]:
                firsts = []
                for word in batch.word_ids(row):
                    firsts.append(word if word is not None and word > seen else -1)
                    seen = max(seen, -1 if word is None else word)
                part = (np.array(batch["input_ids"][row], dtype=np.int64), np.array(firsts))
                yield Item(example, len(firsts), part)

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids (L,), labels (L,): a tag on the first piece of each word."""
        ids, firsts = item.part
        sample: Sample = {"input_ids": hide(ids, self.tokenizer, rng, augment)}
        if item.example.target is not None:
            numbers = np.array([self.names.index(tag) for tag in item.example.target], dtype=np.int64)
            sample["labels"] = np.where(firsts >= 0, numbers[np.maximum(firsts, 0)], _IGNORED)
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy; a word counts 1."""
        return mean_loss(output, (batch["labels"] != _IGNORED).sum())

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of each piece."""
        return rows_of(output.logits)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """A tag a word, and the spans that they name."""
        words = items[0].example.input
        tags = ["O" if "O" in self.names else self.names[0]] * len(words)
        for item, scores in zip(items, answers, strict=True):
            _, firsts = item.part
            for place in np.flatnonzero(firsts >= 0):
                tags[firsts[place]] = self.names[int(scores[place].argmax())]
        found = [
            {"type": kind, "start": start, "end": stop, "text": " ".join(words[start:stop])}
            for kind, start, stop in (spans(tags) if self.spans else [])
        ]
        return {"labels": tags, "entities": found}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1 of whole spans, of all types and of each; share of right tags."""
        truth = [example.target for example in examples]
        given = [prediction["labels"] for prediction in predictions]
        right = sum(
            t == g for expected, got in zip(truth, given, strict=True) for t, g in zip(expected, got, strict=True)
        )
        scores = {"accuracy": right / max(1, sum(map(len, truth)))}
        if not self.spans:
            return scores
        each = span_f1(truth, given)
        whole = each.pop("")
        best = {"f1": whole.f1, "precision": whole.precision, "recall": whole.recall}
        return {**best, **scores, **{f"f1_{kind}": score.f1 for kind, score in each.items()}}

    def confusion(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Confusion | None:
        """Tag by tag."""
        truth = [tag for example in examples for tag in example.target]
        return Confusion.of(truth, [tag for prediction in predictions for tag in prediction["labels"]], self.names)

    def save_processor(self, folder: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save_pretrained(folder)

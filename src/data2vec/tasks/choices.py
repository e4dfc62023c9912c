"""Multiple choice: the best of several ways to go on (SWAG), or of several answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.text import Choices, read_choices
from data2vec.errors import BadSample, UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.text.heads import Data2VecTextForMultipleChoice
from data2vec.models.v2.heads import Data2Vec2TextForMultipleChoice
from data2vec.processing.text import RobertaTokenizer
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.sentences import load_tokenizer, longest, text_fills
from data2vec.tasks.task import Item, Prediction, Rng, load_model, mean_loss, rows_of, softmax


class MultipleChoice:
    """One score an option; the highest is the answer."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-text": Data2VecTextForMultipleChoice,
        "data2vec2-text": Data2Vec2TextForMultipleChoice,
    }
    metric = "accuracy"
    own_loss = False

    def __init__(self, model: PreTrainedModel, tokenizer: RobertaTokenizer, data: LabelledConfig | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        data = data or LabelledConfig()
        self.longest, self.lowercase = longest(model, data.max_length), data.lowercase
        self.fills = {**text_fills(tokenizer), "attention_mask": 0}

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head."""
        return cls(load_model(cls.classes, source, scratch=scratch, **fields), load_tokenizer(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), load_tokenizer(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Questions with options."""
        return read_choices(source)

    @staticmethod
    def example(text: str) -> Example:
        """A beginning and its options, tabs between."""
        prompt, *options = text.split("\t")
        if len(options) < 2:
            raise UserError("give a beginning and two options or more, with tabs between")
        return Example(prompt, Choices(prompt, tuple(options)))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row an example; `part` is the ids of each option."""
        many = len(examples[0].input.options) if examples else 0
        for example in examples:
            choices: Choices = example.input
            if len(choices.options) != many:
                yield BadSample(example.source, f"has {len(choices.options)} options, the first example {many}")
                continue
            if not all(text.strip() for text in (choices.prompt, *choices.options)):
                yield BadSample(example.source, "has an empty beginning or an empty option")
                continue
            fold = str.lower if self.lowercase else str
            pairs = [(fold(choices.prompt), fold(option)) for option in choices.options]
            rows = self.tokenizer(pairs, truncation=True, max_length=self.longest)["input_ids"]
            yield Item(example, len(rows) * max(map(len, rows)), rows)

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids and attention_mask (options, L), and labels () the number of the right one."""
        rows: list[list[int]] = item.part
        shape = len(rows), max(map(len, rows))
        ids, mask = np.full(shape, self.fills["input_ids"], dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        sample: Sample = {"input_ids": ids, "attention_mask": mask}
        if item.example.target is not None:
            sample["labels"] = np.array(item.example.target, dtype=np.int64)
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy over options; an example counts 1."""
        return mean_loss(output, torch.tensor(float(len(batch["labels"])), device=output.loss.device))

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """A score an option."""
        return rows_of(output.logits)

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The option of the highest score."""
        shares = softmax(answers[0])
        best = int(shares.argmax())
        options = items[0].example.input.options
        return {"answer": options[best], "choice": best, "scores": [round(float(share), 5) for share in shares]}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Share of right choices."""
        right = [p["choice"] == e.target for e, p in zip(examples, predictions, strict=True)]
        return {"accuracy": float(np.mean(right))}

    def save_processor(self, folder: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save_pretrained(folder)

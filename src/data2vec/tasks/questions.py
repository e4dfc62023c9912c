"""Answers within a text (SQuAD): long texts in windows that overlap, n-best answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.text import Answer, Question, read_questions
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.spans import exact_match, overlap_f1
from data2vec.modeling import PreTrainedModel
from data2vec.models.text.heads import Data2VecTextForQuestionAnswering
from data2vec.models.v2.heads import Data2Vec2TextForQuestionAnswering
from data2vec.processing.text import RobertaTokenizer
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.sentences import load_tokenizer, longest, text_fills
from data2vec.tasks.task import Item, Prediction, Rng, load_model, mean_loss, rows_of, softmax

_MAY_BE_NONE = "may_have_no_answer"
"""Key of config.json under which a model says that a question may have no answer."""
_LONGEST_ANSWER = 30
_BEST = 5


def _lower(text: str) -> str:
    """Lower case, character by character: of this one letter alone there would be two, and answers are counted off."""
    return text.replace("\u0130", "I").lower()


@dataclass(frozen=True, slots=True)
class Window:
    """A row: its tokens, where the context begins in it, and the characters of each context token."""

    ids: npt.NDArray[np.int64]
    first: int
    spans: npt.NDArray[np.int64]


class QuestionAnswering:
    """The stretch of a text that answers a question."""

    classes: Mapping[str, type[PreTrainedModel]] = {
        "data2vec-text": Data2VecTextForQuestionAnswering,
        "data2vec2-text": Data2Vec2TextForQuestionAnswering,
    }
    metric = "f1"
    own_loss = False

    def __init__(self, model: PreTrainedModel, tokenizer: RobertaTokenizer, data: LabelledConfig | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        data = data or LabelledConfig()
        self.longest, self.stride, self.lowercase = longest(model, data.max_length), data.stride, data.lowercase
        self.fills = text_fills(tokenizer)
        self.may_be_none = bool(model.config.extra.get(_MAY_BE_NONE))

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a new head."""
        model = load_model(cls.classes, source, scratch=scratch, num_labels=2, **fields)
        if any(example.target == () for example in train):
            model.config.extra[_MAY_BE_NONE] = True
        return cls(model, load_tokenizer(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), load_tokenizer(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Questions about texts."""
        return read_questions(source)

    @staticmethod
    def example(text: str) -> Example:
        """A question, a tab, and the text that answers it."""
        question, tab, context = text.partition("\t")
        if not tab:
            raise UserError("give a question, a tab, and the text that answers it")
        return Example(question, Question(question, question, context))

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """One row a window of the context."""
        fold = _lower if self.lowercase else str
        questions = self.tokenizer([fold(e.input.question) for e in examples], add_special_tokens=False)["input_ids"]
        contexts = self.tokenizer(
            [fold(e.input.context) for e in examples], add_special_tokens=False, return_offsets_mapping=True
        )
        for example, question, ids, spans in zip(
            examples, questions, contexts["input_ids"], contexts["offset_mapping"], strict=True
        ):
            if not question or not ids:
                yield BadSample(example.source, "has an empty question or an empty context")
                continue
            for window in self._windows(question, ids, spans):
                yield Item(example, len(window.ids), window)

    def _windows(self, question: list[int], ids: list[int], spans: list[tuple[int, int]]) -> Iterator[Window]:
        """``<s> question </s></s> context </s>``; a question takes half of a row at most."""
        bos, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        assert bos is not None and sep is not None
        head = [bos, *question[: self.longest // 2 - 4], sep, sep]
        room = self.longest - len(head) - 1
        step = room - min(self.stride, room // 2)
        for start in range(0, max(1, len(ids) - room + step), step):
            row = np.array([*head, *ids[start : start + room], sep], dtype=np.int64)
            yield Window(row, len(head), np.array(spans[start : start + room], dtype=np.int64))

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids (L,), start_positions and end_positions (): of the first answer, or 0 where it is elsewhere."""
        window: Window = item.part
        sample: Sample = {"input_ids": window.ids}
        if item.example.target is not None:
            first, last = locate(window, item.example.target[0]) if item.example.target else (0, 0)
            sample["start_positions"] = np.array(first, dtype=np.int64)
            sample["end_positions"] = np.array(last, dtype=np.int64)
        return sample

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean of the cross-entropies of both ends; a row counts 1."""
        return mean_loss(output, torch.tensor(float(len(batch["input_ids"])), device=output.loss.device))

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Scores of both ends at each token: (2, L) a row."""
        return rows_of(torch.stack([output.start_logits, output.end_logits], dim=1))

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """The best stretches over all windows, with their shares of the probability among these."""
        question: Question = items[0].example.input
        found: dict[str, float] = {}
        none = np.inf
        for item, (starts, ends) in zip(items, answers, strict=True):
            none = min(none, float(starts[0] + ends[0]))
            for (first, last), score in best_stretches(item.part, starts, ends):
                text = question.context[first:last]
                found[text] = max(score, found.get(text, -np.inf))
        if self.may_be_none:
            found[""] = none
        ranked = sorted(found.items(), key=lambda pair: -pair[1])[:_BEST]
        shares = softmax([score for _, score in ranked])
        nbest = [{"text": text, "score": round(float(s), 5)} for (text, _), s in zip(ranked, shares, strict=True)]
        return {"id": question.id, "answer": ranked[0][0], "score": nbest[0]["score"], "nbest": nbest}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """F1 of words and exact match, as SQuAD counts them."""
        accepted = [[answer.text for answer in example.target] for example in examples]
        given = [prediction["answer"] for prediction in predictions]
        pairs = list(zip(given, accepted, strict=True))
        return {
            "f1": float(np.mean([overlap_f1(*pair) for pair in pairs])),
            "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
        }

    def save_processor(self, folder: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save_pretrained(folder)


def locate(window: Window, answer: Answer) -> tuple[int, int]:
    """First and last token of an answer in a row; (0, 0) where the row does not hold all of it."""
    stop = answer.start + len(answer.text)
    inside = np.flatnonzero((window.spans[:, 1] > answer.start) & (window.spans[:, 0] < stop))
    if not len(inside) or window.spans[inside[0], 0] > answer.start or window.spans[inside[-1], 1] < stop:
        return 0, 0
    return window.first + int(inside[0]), window.first + int(inside[-1])


def best_stretches(
    window: Window, starts: npt.NDArray[Any], ends: npt.NDArray[Any]
) -> Iterator[tuple[tuple[int, int], float]]:
    """The best stretches of a window's context: characters (from, to) and the sum of both ends' scores."""
    size = len(window.spans)
    starts, ends = (scores[window.first : window.first + size] for scores in (starts, ends))
    total = starts[:, None] + ends[None, :]
    place = np.arange(size)
    length = place[None, :] - place[:, None]
    total = np.where((length >= 0) & (length < _LONGEST_ANSWER), total, -np.inf)
    for flat in np.argsort(-total, axis=None)[:_BEST]:
        first, last = divmod(int(flat), size)
        if np.isfinite(total[first, last]):
            yield (int(window.spans[first, 0]), int(window.spans[last, 1])), float(total[first, last])

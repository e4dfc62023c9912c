"""Language models: masked (continued pre-training on plain text) and causal."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from data2vec.data.audio import Sample
from data2vec.data.labelled.example import Example, Read
from data2vec.data.labelled.text import read_passages
from data2vec.errors import BadSample
from data2vec.modeling import PreTrainedModel
from data2vec.models.text.heads import Data2VecTextForCausalLM, Data2VecTextForMaskedLM
from data2vec.processing.text import RobertaTokenizer
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.sentences import load_tokenizer, longest, text_fills
from data2vec.tasks.task import Item, Prediction, Rng, load_model, mean_loss, softmax

_IGNORED = -100
_MASKED, _SHOWN, _RANDOM = 0.15, 0.1, 0.1
"""BERT's shares: tokens to be guessed; of these, those left as they are and those replaced by a random one."""
_NEW_TOKENS = 50


class _LanguageModel(ABC):
    """What both share: passages in rows, loss a token, perplexity."""

    classes: Mapping[str, type[PreTrainedModel]]
    metric = "loss"
    own_loss = False
    shift = 0
    fixed: Mapping[str, Any] = {}

    def __init__(self, model: PreTrainedModel, tokenizer: RobertaTokenizer, data: LabelledConfig | None = None) -> None:
        data = data or LabelledConfig()
        self.model, self.tokenizer, self.lowercase = model, tokenizer, data.lowercase
        self.longest = longest(model, data.max_length)
        self.fills = text_fills(tokenizer)

    @classmethod
    def begin(
        cls, source: str | Path, train: Sequence[Example], data: LabelledConfig, *, scratch: bool = False, **fields: Any
    ) -> Self:
        """An encoder with a head over its vocabulary."""
        model = load_model(cls.classes, source, scratch=scratch, **{**cls.fixed, **fields})
        return cls(model, load_tokenizer(source), data)

    @classmethod
    def open(cls, folder: str | Path, data: LabelledConfig | None = None) -> Self:
        """A fine-tuned model."""
        return cls(load_model(cls.classes, folder), load_tokenizer(folder), data)

    @staticmethod
    def read(source: Path, data: LabelledConfig) -> Iterator[Read]:
        """Passages of plain text; the text is its own label."""
        return read_passages(source, share=data.dev_share)

    @staticmethod
    def example(text: str) -> Example:
        """A text with something missing."""
        return Example(text, text)

    def items(self, examples: Sequence[Example], *, train: bool = False) -> Iterator[Item | BadSample]:
        """Rows of ``<s> ... </s>``, as many as a passage fills; what is to be completed is cut at its beginning."""
        texts = [example.input.lower() if self.lowercase else example.input for example in examples]
        bos, eos = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        room = self.longest - 2
        for example, ids in zip(
            examples, self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [], strict=True
        ):
            if not ids:
                yield BadSample(example.source, "is empty")
            elif example.target is None:
                yield Item(example, min(len(ids), room) + 2, np.array([bos, *ids[-room:], eos], dtype=np.int64))
            else:
                for start in range(0, len(ids), room):
                    row = np.array([bos, *ids[start : start + room], eos], dtype=np.int64)
                    yield Item(example, len(row), row)

    def loss(self, output: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy; a token to be guessed counts 1."""
        return mean_loss(output, (batch["labels"][:, self.shift :] != _IGNORED).sum())

    def answers(self, output: Any, batch: Mapping[str, Tensor]) -> list[Any]:
        """Of text with labels the loss, the tokens guessed and those that are right; else what `complete` says."""
        if "labels" not in batch:
            return self.complete(output.logits, batch)
        logits = output.logits[:, : output.logits.shape[1] - self.shift].float()
        labels = batch["labels"][:, self.shift :]
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none").sum(dim=1)
        counts = (labels != _IGNORED).sum(dim=1)
        hits = (logits.argmax(dim=2) == labels).sum(dim=1)
        return list(zip(losses.tolist(), counts.tolist(), hits.tolist(), strict=True))

    @abstractmethod
    def complete(self, logits: Tensor, batch: Mapping[str, Tensor]) -> list[Any]:
        """What is missing in each row."""

    def predict(self, items: Sequence[Item], answers: Sequence[Any]) -> Prediction:
        """Sums over a passage, or what was missing in a text."""
        if items[0].example.target is None:
            return dict(answers[0])
        loss, tokens, hits = (sum(column) for column in zip(*answers, strict=True))
        return {"loss": loss, "tokens": tokens, "hits": hits}

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Loss a token, its exponential, and the share of right guesses."""
        loss, tokens, hits = (sum(p[name] for p in predictions) for name in ("loss", "tokens", "hits"))
        mean = loss / max(tokens, 1)
        return {"loss": mean, "perplexity": math.exp(min(mean, 700)), "accuracy": hits / max(tokens, 1)}

    def save_processor(self, folder: Path) -> None:
        """The tokenizer."""
        self.tokenizer.save_pretrained(folder)


class FillMask(_LanguageModel):
    """Tokens that were hidden, guessed from both sides."""

    classes: Mapping[str, type[PreTrainedModel]] = {"data2vec-text": Data2VecTextForMaskedLM}

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids (L,) with tokens hidden, labels (L,) these tokens; the same ones in every evaluation."""
        ids: npt.NDArray[np.int64] = item.part
        if item.example.target is None:
            return {"input_ids": ids}
        rng = rng or np.random.default_rng(ids.tolist())
        mask_id = self.tokenizer.mask_token_id
        assert mask_id is not None
        chosen = rng.random(len(ids)) < _MASKED
        chosen[[0, -1]] = False
        if not chosen.any():
            chosen[1 + int(rng.integers(len(ids) - 2))] = True
        fate = rng.random(len(ids))
        shown = np.where(chosen & (fate >= _SHOWN + _RANDOM), mask_id, ids)
        random = rng.integers(4, len(self.tokenizer), len(ids))
        shown = np.where(chosen & (fate < _RANDOM), random, shown)
        return {"input_ids": shown, "labels": np.where(chosen, ids, _IGNORED)}

    def complete(self, logits: Tensor, batch: Mapping[str, Tensor]) -> list[Any]:
        """The five best tokens for each ``<mask>``."""
        rows = []
        for scores, ids in zip(logits, batch["input_ids"], strict=True):
            found = []
            for place in (ids == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist():
                shares = softmax(scores[place].float().cpu().numpy())
                best = np.argsort(-shares)[:5]
                found.append(
                    [{"token": self.tokenizer.decode([int(i)]), "score": round(float(shares[i]), 5)} for i in best]
                )
            rows.append({"masks": found, "text": " | ".join(each[0]["token"].strip() for each in found)})
        return rows


class CausalLM(_LanguageModel):
    """The next token, from those before it."""

    classes: Mapping[str, type[PreTrainedModel]] = {"data2vec-text": Data2VecTextForCausalLM}
    shift = 1
    fixed: Mapping[str, Any] = {"is_decoder": True}

    def encode(self, item: Item, rng: Rng, augment: AugmentConfig | None = None) -> Sample:
        """input_ids (L,) and labels (L,), the same: the head shifts them."""
        if item.example.target is None:
            return {"input_ids": item.part[:-1]}
        return {"input_ids": item.part, "labels": item.part}

    def complete(self, logits: Tensor, batch: Mapping[str, Tensor]) -> list[Any]:
        """The text that follows, the most probable token each time."""
        new = min(_NEW_TOKENS, self.longest - batch["input_ids"].shape[1])
        generate: Any = getattr(self.model, "generate")  # noqa: B009
        ids = generate(batch["input_ids"], attention_mask=batch.get("attention_mask"), max_new_tokens=max(new, 1))
        start = batch["input_ids"].shape[1]
        return [{"text": self.tokenizer.decode(row[start:].tolist(), skip_special_tokens=True)} for row in ids]

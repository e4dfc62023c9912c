"""Questions that a text answers. An input is ``{"question": text, "context": text}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.pipelines.text import longest
from data2vec.processing.text import RobertaTokenizer


def answer(
    model: PreTrainedModel,
    processor: RobertaTokenizer,
    inputs: Sequence[Any],
    *,
    top_k: int = 1,
    max_answer_len: int = 15,
    max_seq_len: int = 384,
    doc_stride: int = 128,
    handle_impossible_answer: bool = False,
) -> list[Any]:
    """The stretch of a context that answers a question; long contexts in windows that overlap.

    Args:
        model: with a question-answering head.
        processor: of the model.
        inputs: see the module.
        top_k: answers to return.
        max_answer_len: tokens an answer may have.
        max_seq_len: tokens of a window, question included; at most what the model can read.
        doc_stride: tokens that windows share.
        handle_impossible_answer: let ``""`` compete, with the score of ``<s>``.

    Returns:
        ``{"score", "start", "end", "answer"}`` each, with `top_k` above 1 a list of them, best first. A score is the
        product of both ends' probabilities within the window.
    """
    answers: list[Any] = []
    for given in inputs:
        question, context = _read(given)
        found: dict[tuple[int, int], float] = {}
        width = min(max_seq_len, longest(model))
        for spans, starts, ends, none in _windows(model, processor, question, context, width, doc_stride):
            for place, score in _best(spans, starts, ends, max_answer_len, top_k):
                found[place] = max(score, found.get(place, 0.0))
            if handle_impossible_answer:
                found[0, 0] = min(none, found.get((0, 0), 1.0))
        ranked = sorted(found.items(), key=lambda pair: -pair[1])[:top_k]
        told = [{"score": s, "start": a, "end": b, "answer": context[a:b]} for (a, b), s in ranked]
        answers.append(told if top_k > 1 else told[0])
    return answers


def _read(given: Any) -> tuple[str, str]:
    if not isinstance(given, Mapping) or not {"question", "context"} <= given.keys():
        raise UserError('question-answering: give {"question": text, "context": text}')
    question, context = given["question"], given["context"]
    if not isinstance(question, str) or not isinstance(context, str):
        raise UserError("question-answering: question and context are texts")
    if not question.strip() or not context.strip():
        raise UserError("question-answering: the question or the context is empty")
    return question, context


def _windows(
    model: PreTrainedModel, processor: RobertaTokenizer, question: str, context: str, width: int, stride: int
) -> Iterator[tuple[list[tuple[int, int]], Tensor, Tensor, float]]:
    """Each window's context: characters of its tokens, probabilities of both ends; and of there being no answer."""
    asked = len(processor(question)["input_ids"])
    if asked + 2 + stride >= width:
        stride = max(0, (width - asked - 2) // 2)
    if asked + 4 > width:
        raise UserError(f"the question has {asked} tokens, a window {width}: shorten it or raise max_seq_len")
    encoded = processor(
        [question],
        [context],
        truncation="only_second",
        max_length=width,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for row, ids in enumerate(encoded["input_ids"]):
        output = model(torch.tensor([ids], device=model.device))
        kept = [place for place, which in enumerate(encoded.sequence_ids(row)) if which == 1]
        legal = torch.tensor([0, *kept])  # <s> stands for no answer
        starts = output.start_logits[0].float().cpu()[legal].softmax(dim=-1)
        ends = output.end_logits[0].float().cpu()[legal].softmax(dim=-1)
        spans = [tuple(encoded["offset_mapping"][row][place]) for place in kept]
        yield spans, starts[1:], ends[1:], float(starts[0] * ends[0])


def _best(
    spans: Sequence[tuple[int, int]], starts: Tensor, ends: Tensor, most: int, top_k: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """The best stretches: characters (from, to) and their scores."""
    scores = torch.triu(starts[:, None] * ends[None, :]).tril(most - 1)
    best = scores.flatten().topk(min(top_k, scores.numel()))
    for score, flat in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        first, last = divmod(flat, len(spans))
        yield (spans[first][0], spans[last][1]), score

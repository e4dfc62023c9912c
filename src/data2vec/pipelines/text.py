"""Tasks of text. An input is a text; to be classified also a pair, ``{"text", "text_pair"}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.pipelines.labels import names, probabilities, ranked
from data2vec.processing.text import RobertaTokenizer


def classify(
    model: PreTrainedModel,
    processor: RobertaTokenizer,
    inputs: Sequence[Any],
    *,
    top_k: int | None = 0,
    function_to_apply: str | None = None,
) -> list[Any]:
    """What a text, or a pair of texts, is.

    Returns:
        ``{"label", "score"}`` each; with `top_k` a list of that many, best first (all if None).
    """
    rows = [(x["text"], x.get("text_pair")) if isinstance(x, Mapping) and "text" in x else (x, None) for x in inputs]
    logits = model(**encode(model, processor, *_columns(rows))).logits
    found = ranked(model, logits, 1 if top_k == 0 else top_k, function_to_apply)
    return [row[0] for row in found] if top_k == 0 else found


def fill_mask(
    model: PreTrainedModel, processor: RobertaTokenizer, inputs: Sequence[Any], *, top_k: int = 5
) -> list[Any]:
    """What may stand where a text says ``<mask>``.

    Returns:
        ``[{"score", "token", "token_str", "sequence"}, ...]`` each, best first; a list of such lists, one a mask, for a
        text with several.

    Raises:
        UserError: a text without a mask.
    """
    mask = processor.mask_token_id
    batch = encode(model, processor, list(inputs))
    logits = model(**batch).logits.float().cpu()
    answers = []
    for text, ids, valid, scores in zip(
        inputs, batch["input_ids"].cpu(), batch["attention_mask"].cpu(), logits, strict=True
    ):
        ids, places = ids[valid.bool()], (ids == mask).nonzero().flatten().tolist()
        if not places:
            raise UserError(f"fill-mask: {text!r} has no {processor.mask_token}")
        found: list[list[dict[str, Any]]] = []
        for place in places:
            best = scores[place].softmax(dim=-1).topk(min(top_k, scores.shape[-1]))
            found.append([])
            for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                filled = ids.clone()
                filled[place] = token
                sequence = processor.decode(filled.tolist(), skip_special_tokens=len(places) == 1)
                word = processor.decode([token])
                found[-1].append({"score": score, "token": token, "token_str": word, "sequence": sequence})
        answers.append(found[0] if len(found) == 1 else found)
    return answers


def write(
    model: PreTrainedModel,
    processor: RobertaTokenizer,
    inputs: Sequence[Any],
    *,
    max_new_tokens: int = 20,
    return_full_text: bool = True,
    num_return_sequences: int = 1,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 50,
    top_p: float = 1.0,
    num_beams: int = 1,
    generator: torch.Generator | None = None,
) -> list[Any]:
    """Text that goes on where the input ends; the options are `generate`'s.

    Returns:
        ``[{"generated_text"}, ...]`` each, `num_return_sequences` of them, with the input in front unless
        `return_full_text` is False.
    """
    batch = encode(model, processor, list(inputs), open_end=True)
    written = model.generate(  # type: ignore[operator]
        **batch,
        max_new_tokens=max_new_tokens,
        num_return_sequences=num_return_sequences,
        do_sample=do_sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        num_beams=num_beams,
        generator=generator,
    )[:, batch["input_ids"].shape[1] :].cpu()
    texts = [processor.decode(row.tolist(), skip_special_tokens=True) for row in written]
    heads = [text if return_full_text else "" for text in inputs]
    every = range(num_return_sequences)
    return [
        [{"generated_text": head + texts[index * num_return_sequences + which]} for which in every]
        for index, head in enumerate(heads)
    ]


def classify_tokens(
    model: PreTrainedModel,
    processor: RobertaTokenizer,
    inputs: Sequence[Any],
    *,
    aggregation_strategy: str = "none",
    ignore_labels: Sequence[str] = ("O",),
) -> list[Any]:
    """What each token of a text is.

    Args:
        model: with a token head.
        processor: of the model.
        inputs: texts.
        aggregation_strategy: ``none``, or ``simple``: neighbours of one kind (``B-X``, ``I-X``) become one entity.
            With ``first``, ``average`` and ``max`` a word has one label before that: of its first token, of the mean of
            its tokens' probabilities, or of its surest token.
        ignore_labels: labels that are left out.

    Returns:
        ``[{"entity", "score", "index", "word", "start", "end"}, ...]`` each; with another strategy than ``none``
        ``{"entity_group", "score", "word", "start", "end"}``.
    """
    if aggregation_strategy not in _AGGREGATIONS:
        raise UserError(f"aggregation_strategy={aggregation_strategy!r}: choose one of {', '.join(_AGGREGATIONS)}")
    batch = encode(model, processor, list(inputs))
    scores = probabilities(model(**batch).logits, model.config, "softmax").cpu()
    encoded = processor(
        list(inputs),
        truncation=True,
        max_length=longest(model),
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    labels, answers = names(model), []
    for row, (text, spans, special) in enumerate(
        zip(inputs, encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
    ):
        tokens = [index for index, skip in enumerate(special) if not skip]
        whole = aggregation_strategy not in ("none", "simple")
        found = []
        for number, unit in enumerate(_words(tokens, spans, text) if whole else [[index] for index in tokens]):
            score, best = _AGGREGATIONS[aggregation_strategy](scores[row, unit]).max(dim=-1)
            start, end = spans[unit[0]][0], spans[unit[-1]][1]
            entity = {"entity": labels[int(best)], "score": float(score), "index": number if whole else unit[0]}
            found.append({**entity, "word": text[start:end], "start": start, "end": end})
        kept = [entity for entity in found if entity["entity"] not in ignore_labels]
        answers.append(kept if aggregation_strategy == "none" else _joined(kept, text))
    return answers


def _words(tokens: Sequence[int], spans: Sequence[tuple[int, int]], text: str) -> list[list[int]]:
    """Tokens by the words that they spell; a word ends at white space (transformers' fallback rule for this BPE)."""
    words: list[list[int]] = []
    for index in tokens:
        start = spans[index][0]
        inside = start > 0 and not any(letter.isspace() for letter in text[start - 1 : start + 1])
        if inside and words:
            words[-1].append(index)
        else:
            words.append([index])
    return words


_AGGREGATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda scores: scores[0],
    "simple": lambda scores: scores[0],
    "first": lambda scores: scores[0],
    "average": lambda scores: scores.mean(dim=0),
    "max": lambda scores: scores[scores.amax(dim=-1).argmax()],
}
"""(tokens, labels) probabilities of a unit -> (labels,)."""


def _joined(entities: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Neighbouring tokens of one kind as one; a ``B-`` begins another."""
    group, before, groups = 0, None, []
    for entity in entities:
        begins, _, kind = entity["entity"].rpartition("-")
        follows = before is not None and before["index"] + 1 == entity["index"] and kind == before["kind"]
        group += not follows or begins == "B"
        before = {**entity, "kind": kind, "group": group}
        groups.append(before)
    joined = []
    for _, parts in groupby(groups, key=lambda part: part["group"]):
        run = list(parts)
        start, end = run[0]["start"], run[-1]["end"]
        score = sum(part["score"] for part in run) / len(run)
        whole = {"entity_group": run[0]["kind"], "score": score}
        joined.append({**whole, "word": text[start:end].strip(), "start": start, "end": end})
    return joined


def choose(model: PreTrainedModel, processor: RobertaTokenizer, inputs: Sequence[Any]) -> list[Any]:
    """Which of several continuations fits a text best.

    Args:
        model: with a multiple-choice head.
        processor: of the model.
        inputs: ``{"prompt": text, "choices": [texts]}`` each.

    Returns:
        ``{"choice": number, "answer": text, "score", "scores": [...]}`` each.
    """
    answers = []
    for question in inputs:  # numbers of choices differ, so one question is one batch
        prompt, choices = _fields(question, "prompt", "choices")
        batch = encode(model, processor, [prompt] * len(choices), list(choices))
        scores = model(**{name: x[None] for name, x in batch.items()}).logits[0].float().softmax(dim=-1).tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        answers.append({"choice": best, "answer": choices[best], "score": scores[best], "scores": scores})
    return answers


def _fields(question: Any, text: str, several: str) -> tuple[str, Sequence[str]]:
    if not isinstance(question, Mapping) or text not in question or not question.get(several):
        raise UserError(f'give {{"{text}": text, "{several}": [texts]}}')
    return question[text], question[several]


def features(
    model: PreTrainedModel, processor: RobertaTokenizer, inputs: Sequence[Any], *, return_tensors: bool = False
) -> list[Any]:
    """The last hidden states, (1, tokens, width) each: nested lists, or tensors."""
    batch = encode(model, processor, list(inputs))
    hidden = model(**batch).last_hidden_state.float().cpu()
    extra = int(getattr(model.config, "num_extra_tokens", 0))
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    found = [row[None, : extra + length] for row, length in zip(hidden, lengths, strict=True)]
    return found if return_tensors else [row.tolist() for row in found]


# Text to rows


def longest(model: PreTrainedModel) -> int:
    """Tokens that the model has positions for."""
    return int(model.config.max_length)


def encode(
    model: PreTrainedModel,
    processor: RobertaTokenizer,
    texts: Sequence[Any],
    pairs: Sequence[str] | None = None,
    *,
    open_end: bool = False,
) -> dict[str, Tensor]:
    """Texts as ``input_ids`` and ``attention_mask`` (B, L) on the model's device, cut to what it can read.

    Args:
        model: that reads them.
        processor: its tokenizer.
        texts: one a row.
        pairs: the second text of each row.
        open_end: leave out the closing ``</s>``, for a text that goes on; a text that is too long is not cut.

    Raises:
        UserError: something is no text, or holds no token.
    """
    for text in [*texts, *(pairs or [])]:
        if not isinstance(text, str):
            raise UserError(f"a text is expected, not {type(text).__name__}")
        if not text.strip() and not open_end:
            raise UserError("a text is empty")
    limit: dict[str, Any] = {} if open_end else {"truncation": True, "max_length": longest(model)}
    rows = processor(list(texts), None if pairs is None else list(pairs), **limit)["input_ids"]
    if open_end:
        rows = [row[:-1] for row in rows]
    width = max(map(len, rows))
    pad = processor.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}


def _columns(rows: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[str] | None]:
    """(text, pair) rows as two columns; a batch has pairs everywhere or nowhere."""
    paired = {pair is not None for _, pair in rows}
    if len(paired) > 1:
        raise UserError("either all inputs of a batch have a text_pair or none: batch_size=1 takes both")
    return [text for text, _ in rows], [pair for _, pair in rows] if paired == {True} else None

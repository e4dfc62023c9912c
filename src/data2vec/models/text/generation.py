"""Writing text with a causal model: greedy, sampling, beam search.

Positions are those of the forward pass: the i-th valid token of a row has ``pad_token_id + 1 + i``, with a cache or
without, on whichever side the prompt is padded. (transformers from 4.46 on counts from 0 here, which the model has
never seen; ``compat="transformers"`` does so too.)

Shapes: B prompts, R rows (prompts times beams or samples), L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data2vec.errors import UserError
from data2vec.nn.cache import Cache


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: divides the scores; below 1 is bolder.
        top_k: only this many best tokens; 0 = all.
        top_p: only the best tokens that together have this probability; 1 = all.
        generator: source of randomness; None = torch's.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name, fine in (
            ("temperature", self.temperature > 0),
            ("top_k", self.top_k >= 0),
            ("top_p", 0 < self.top_p <= 1),
        ):
            if not fine:
                raise UserError(f"{name}={getattr(self, name)} is out of range")

    def draw(self, scores: Tensor) -> Tensor:
        """(R, V) -> tokens (R,)."""
        return torch.multinomial(self.filter(scores).softmax(dim=-1), 1, generator=self.generator)[:, 0]

    def filter(self, scores: Tensor) -> Tensor:
        """(R, V) -> scores over temperature, -inf for what top-k and top-p leave out (arXiv 1904.09751)."""
        scores = scores.float() / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, -math.inf)
        if self.top_p < 1:
            ranked, order = scores.sort(dim=-1, descending=True)
            chances = ranked.softmax(dim=-1)
            late = chances.cumsum(dim=-1) - chances >= self.top_p  # what comes before is enough already
            scores = scores.masked_fill(late.gather(-1, order.argsort(dim=-1)), -math.inf)
        return scores


@dataclass
class _Rows:
    """Rows that are being written: valid tokens at the right end, padding before them."""

    model: Any
    ids: Tensor
    mask: Tensor
    context: dict[str, Tensor]
    cache: Cache | None

    def scores(self) -> Tensor:
        """(R, V) of the next token."""
        past = 0 if self.cache is None else self.cache.length
        output = self.model(
            self.ids[:, past:],
            self.mask,
            position_ids=positions(self.mask, self.model.config)[:, past:],
            past_key_values=self.cache,
            use_cache=self.cache is not None,
            logits_to_keep=1,
            return_dict=True,
            **self.context,
        )
        scores: Tensor = output.logits[:, -1].float()
        return scores

    def append(self, tokens: Tensor) -> None:
        """One token (R,) a row."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep rows `rows` (R',), in this order."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self.cache is not None:
            self.cache.reorder(rows)


def positions(mask: Tensor, config: Any) -> Tensor:
    """Position ids (R, L) of rows with `mask` (R, L), 1 = valid."""
    valid = mask.long()
    counted: Tensor = valid.cumsum(dim=1)
    if config.is_compatible:
        return (counted - 1) * valid
    return counted * valid + int(config.pad_token_id)


@torch.no_grad()
def generate(
    model: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 50,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    num_return_sequences: int = 1,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    use_cache: bool = True,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
) -> Tensor:
    """Continue prompts.

    Args:
        model: a causal language model (this function is its method).
        input_ids: (B, L) prompts, padded on either side; None starts one text with `bos_token_id`.
        attention_mask: (B, L), 1 = valid; None takes every token but `pad_token_id`.
        max_new_tokens: at most this many tokens; 20 where `max_length` is None too.
        max_length: the same, prompt included.
        do_sample: draw tokens instead of taking the best.
        temperature: see `Sampling`, as `top_k`, `top_p` and `generator`.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        generator: see `Sampling`.
        num_beams: beams of a beam search; 1 = none.
        length_penalty: a beam's log-probability is divided by its new tokens to this power; above 0 favours long texts.
        early_stopping: a search ends once `num_beams` texts have ended, whatever could still come.
        num_return_sequences: samples, or best beams, of each prompt.
        eos_token_id: token or tokens that end a text; None = the configuration's, ``()`` = none.
        pad_token_id: fills up texts that ended early; None = the configuration's.
        use_cache: compute every token once. Without, each step reads the whole text again, with equal results.
        encoder_hidden_states: (B, S, H) for cross-attention.
        encoder_attention_mask: (B, S), 1 = valid.

    Returns:
        (B * num_return_sequences, L + new tokens): the prompts as given, then what was written.

    Raises:
        UserError: options contradict each other, or the text could outgrow the model's positions.
    """
    config = model.config
    if not config.is_decoder:
        raise UserError("generate needs a model that hides the future: set is_decoder=True in the config")
    if input_ids is None:
        input_ids = torch.full((1, 1), config.bos_token_id, dtype=torch.long, device=model.device)
    mask = (input_ids != config.pad_token_id).long() if attention_mask is None else attention_mask.long()
    new = _budget(input_ids.shape[1], max_new_tokens, max_length)
    _check(config, mask, new, do_sample, num_beams, num_return_sequences)
    ends = _ends(config.eos_token_id if eos_token_id is None else eos_token_id)
    pad = config.pad_token_id if pad_token_id is None else pad_token_id
    context = {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
    copies = num_beams if num_beams > 1 else num_return_sequences
    ids, valid = (input_ids, mask) if config.is_compatible else _padding_first(input_ids, mask)
    rows = _Rows(
        model,
        ids.repeat_interleave(copies, dim=0),
        valid.repeat_interleave(copies, dim=0),
        {name: x.repeat_interleave(copies, dim=0) for name, x in context.items() if x is not None},
        Cache.empty(config.num_hidden_layers) if use_cache else None,
    )
    if num_beams > 1:
        written = _search(rows, new, ends, pad, num_beams, num_return_sequences, length_penalty, early_stopping)
    else:
        sampling = Sampling(temperature, top_k, top_p, generator) if do_sample else None
        written = _follow(rows, new, ends, pad, sampling)
    return torch.cat([input_ids.repeat_interleave(num_return_sequences, dim=0), written], dim=1)


def _budget(prompt: int, max_new_tokens: int | None, max_length: int | None) -> int:
    if max_new_tokens is not None and max_length is not None:
        raise UserError("give max_new_tokens or max_length, not both")
    new = max_new_tokens if max_new_tokens is not None else 20 if max_length is None else max_length - prompt
    if new < 1:
        raise UserError(f"nothing to write: the prompt has {prompt} tokens and max_length is {max_length}")
    return new


def _check(config: Any, mask: Tensor, new: int, do_sample: bool, beams: int, wanted: int) -> None:
    if beams > 1 and do_sample:
        raise UserError("num_beams above 1 searches, do_sample=True draws: choose one")
    if min(beams, wanted) < 1 or (wanted > 1 and not do_sample and wanted > beams):
        raise UserError(f"num_return_sequences={wanted} needs do_sample=True or as many num_beams (now {beams})")
    absolute = config.position_embedding_type == "absolute"
    length = int(mask.sum(dim=1).max()) if absolute else mask.shape[1]
    limit = config.max_length if absolute else config.max_position_embeddings
    if length + new > limit:
        raise UserError(
            f"a prompt of {length} tokens and {new} new ones are more than the {limit} positions that "
            f"max_position_embeddings={config.max_position_embeddings} allows: shorten the prompt or max_new_tokens"
        )


def _ends(tokens: int | Sequence[int] | None) -> list[int]:
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else list(tokens)


def _padding_first(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's valid tokens moved to its end, in order."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def _follow(rows: _Rows, new: int, ends: list[int], pad: int, sampling: Sampling | None) -> Tensor:
    """Greedy or sampled tokens (R, <= new); rows that ended are filled up with `pad`."""
    prompt = rows.ids.shape[1]
    running = torch.ones(len(rows.ids), dtype=torch.bool, device=rows.ids.device)
    for _ in range(new):
        scores = rows.scores()
        tokens = scores.argmax(dim=-1) if sampling is None else sampling.draw(scores)
        rows.append(tokens.masked_fill(~running, pad))
        for end in ends:
            running &= tokens != end
        if not running.any():
            break
    return rows.ids[:, prompt:]


def _search(
    rows: _Rows, new: int, ends: list[int], pad: int, beams: int, wanted: int, penalty: float, early: bool
) -> Tensor:
    """The best `wanted` texts of each prompt by beam search, (B * wanted, <= new).

    Only the `beams` best continuations of a step may end a text; of the others, the `beams` best go on.
    """
    prompt, device = rows.ids.shape[1], rows.ids.device
    count = len(rows.ids) // beams
    totals = torch.full((count, beams), -1e9, device=device)
    totals[:, 0] = 0.0  # all beams of a prompt are equal at first: only one may be continued
    found: list[list[tuple[float, list[int]]]] = [[] for _ in range(count)]
    done = [False] * count
    for step in range(1, new + 1):
        chances = totals.flatten()[:, None] + rows.scores().log_softmax(dim=-1)
        vocabulary = chances.shape[-1]
        best = chances.view(count, -1).topk(min((len(ends) + 1 if len(ends) > 1 else 2) * beams, beams * vocabulary))
        origin, tokens, kept = [], [], torch.full((count, beams), -1e9)
        for item in range(count):
            going: list[tuple[int, int]] = []
            ranked = zip(best.values[item].tolist(), best.indices[item].tolist(), strict=True)
            for rank, (total, index) in enumerate(ranked):
                row, token = item * beams + index // vocabulary, index % vocabulary
                if token in ends or step == new:
                    if rank < beams and not done[item]:
                        found[item].append((total / step**penalty, [*rows.ids[row, prompt:].tolist(), token]))
                elif len(going) < beams:
                    kept[item, len(going)] = total
                    going.append((row, token))
            going += [(item * beams, pad)] * (beams - len(going))
            origin += [row for row, _ in going]
            tokens += [token for _, token in going]
            found[item] = sorted(found[item], key=lambda text: -text[0])[:beams]
            full = len(found[item]) == beams
            done[item] |= full and (early or float(kept[item, 0]) / step**penalty <= found[item][-1][0])
        if all(done) or step == new:
            break
        totals = kept.to(device)
        rows.select(torch.tensor(origin, device=device))
        rows.append(torch.tensor(tokens, device=device))
    texts = [text for item in found for _, text in item[:wanted]]
    longest = max(map(len, texts))
    return torch.tensor([text + [pad] * (longest - len(text)) for text in texts], device=device)

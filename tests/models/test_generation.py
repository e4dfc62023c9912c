"""generate(): against a loop over whole forward passes, against an exhaustive search, and against transformers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from data2vec import Data2VecTextForCausalLM, UserError
from data2vec.models.text.generation import Sampling

LM = "Data2VecTextForCausalLM"


def causal(seed: int = 0, sharp: float = 6.0, **changes: Any) -> Data2VecTextForCausalLM:
    """A decoder that is sure of what it writes: nothing hangs on rounding."""
    model = zoo.build(LM, seed=seed, **{"eos_token_id": None, **changes})
    assert isinstance(model, Data2VecTextForCausalLM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharp if parameter.dim() > 1 else 1.0)
    return model


def plain_greedy(model: Data2VecTextForCausalLM, prompt: Tensor, new: int) -> list[int]:
    """One text, without padding, mask or cache."""
    ids = prompt[None]
    for _ in range(new):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    written: list[int] = ids[0, len(prompt) :].tolist()
    return written


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("positions", ["absolute", "relative_key"])
def test_greedy_equals_whole_forward_passes_for_any_padding(side: str, cached: bool, positions: str) -> None:
    model = causal(position_embedding_type=positions)
    batch = zoo.text_batch((9, 4))
    prompts = [batch["input_ids"][0], batch["input_ids"][1, :4]]
    if side == "left":
        batch = {key: value.flip(1) for key, value in batch.items()}
        prompts = [prompt.flip(0) for prompt in prompts]
    written = model.generate(**batch, max_new_tokens=8, use_cache=cached)
    assert torch.equal(written[:, :9], batch["input_ids"])
    for row, prompt in enumerate(prompts):
        assert written[row, 9:].tolist() == plain_greedy(model, prompt, 8), f"row {row}"


def test_the_references_positions_write_something_else() -> None:
    """The defect of transformers 4.46 to 5.23: positions count from 0 here, from 2 in forward."""
    prompt = zoo.text_batch((9,))["input_ids"]
    ours, theirs = causal(), causal(compat="transformers")
    wanted = plain_greedy(ours, prompt[0], 12)
    assert ours.generate(prompt, max_new_tokens=12)[0, 9:].tolist() == wanted
    assert theirs.generate(prompt, max_new_tokens=12)[0, 9:].tolist() != wanted


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0},
        {"num_beams": 3, "early_stopping": True, "length_penalty": 0.3},
        {"num_beams": 2, "length_penalty": -1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_compat_writes_what_transformers_writes(options: dict[str, Any], seed: int, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", minversion="5", reason="the oracle, a dev extra")
    model = causal(seed, compat="transformers", eos_token_id=7, sharp=4.0)
    with torch.no_grad():
        model.head.bias[7] += 4.0  # texts end now and then
    model.save_pretrained(tmp_path)
    theirs = transformers.Data2VecTextForCausalLM.from_pretrained(tmp_path)
    batch = {key: value.flip(1) for key, value in zoo.text_batch((9, 4, 6)).items()}
    wanted = theirs.generate(**batch, max_new_tokens=10, do_sample=False, **options)
    got = model.generate(**batch, max_new_tokens=10, **options)
    assert got.tolist() == wanted.tolist()


def test_a_wide_beam_finds_the_best_text() -> None:
    """Beams as many as there are texts: the search is exhaustive."""
    model = causal(vocab_size=6, sharp=3.0, num_labels=2)
    prompt = torch.tensor([[4, 3, 5]])
    texts = torch.tensor(list(itertools.product(range(6), repeat=3)))
    whole = torch.cat([prompt.expand(len(texts), -1), texts], dim=1)
    scores = model(whole, use_cache=False).logits[:, 2:-1].log_softmax(-1)
    total = scores.gather(2, texts[..., None])[..., 0].sum(1)
    best = texts[total.topk(5).indices].tolist()
    found = model.generate(prompt, max_new_tokens=3, num_beams=36, num_return_sequences=5)
    assert found[:, 3:].tolist() == best


def test_texts_end_at_their_end_token() -> None:
    model = causal()
    prompt = zoo.text_batch((9, 9))["input_ids"]
    free = model.generate(prompt, max_new_tokens=10)
    ends = [int(free[0, 9 + 2]), int(free[1, 9 + 4])]
    written = model.generate(prompt, max_new_tokens=10, eos_token_id=ends, pad_token_id=3)
    for row in range(2):
        first = next(i for i, token in enumerate(free[row, 9:].tolist()) if token in ends)
        assert written[row, 9 : 9 + first + 1].tolist() == free[row, 9 : 9 + first + 1].tolist()
        assert set(written[row, 9 + first + 1 :].tolist()) <= {3}
    assert written.shape[1] < 19


def test_sampling_follows_the_distribution_and_its_generator() -> None:
    model = causal(sharp=1.0)
    prompt = zoo.text_batch((5,))["input_ids"]
    draws = [
        model.generate(
            prompt,
            max_new_tokens=3,
            do_sample=True,
            num_return_sequences=4,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    ]
    assert draws[0].shape == (4, 8)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    one = model.generate(prompt, max_new_tokens=4, do_sample=True, top_k=1)
    assert torch.equal(one, model.generate(prompt, max_new_tokens=4))


def test_filters_keep_what_they_say() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    shuffled = torch.tensor([2, 0, 3, 1])

    def kept(**options: Any) -> list[int]:
        filtered = Sampling(**{"top_k": 0, **options}).filter(scores[:, shuffled])
        return sorted(int(shuffled[i]) for i in filtered[0].isfinite().nonzero()[:, 0])

    assert kept() == [0, 1, 2, 3]
    assert kept(top_k=2) == [0, 1]
    assert kept(top_p=0.49) == [0]
    assert kept(top_p=0.51) == [0, 1]
    assert kept(top_p=0.9) == [0, 1, 2]
    assert kept(top_k=3, top_p=0.99) == [0, 1, 2]
    warm = Sampling(temperature=2.0, top_k=0).filter(scores).softmax(-1)
    assert torch.allclose(warm, (scores / 2).softmax(-1))
    drawn = Sampling(top_k=0, generator=torch.Generator().manual_seed(0)).draw(scores.expand(20_000, -1))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, scores.exp()[0], atol=0.015)


def test_cross_attention_is_repeated_for_every_beam() -> None:
    model = causal(add_cross_attention=True)
    prompt, context = zoo.text_batch((5, 5))["input_ids"], torch.randn(2, 4, 32)
    both = model.generate(prompt, max_new_tokens=4, num_beams=3, encoder_hidden_states=context)
    for row in range(2):
        own = slice(row, row + 1)
        one = model.generate(prompt[own], max_new_tokens=4, num_beams=3, encoder_hidden_states=context[own])
        assert torch.equal(both[own], one)


def test_contradictions_are_errors() -> None:
    model, prompt = causal(), torch.tensor([[5, 6]])
    for options, words in (
        ({"max_new_tokens": 3, "max_length": 5}, "not both"),
        ({"max_length": 2}, "nothing to write"),
        ({"num_beams": 2, "do_sample": True}, "choose one"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
    ):
        with pytest.raises(UserError, match=words):
            model.generate(prompt, **options)
    assert model.generate(max_length=4).shape == (1, 4)
    assert model.generate(prompt).shape == (1, 22)

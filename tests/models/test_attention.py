"""All attention kernels give the same, or say why they cannot run; weights come from the eager one."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from data2vec import UserError
from data2vec.nn import attention as module
from data2vec.nn.attention import attend, attend_eager
from data2vec.nn.kernels import flash_obstacle, flex_obstacle

KERNELS = ("eager", "sdpa", "flash", "flex")


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """One query at a time, in double precision."""
    out = torch.zeros_like(query, dtype=torch.float64)
    batch, heads, queries, width = query.shape
    full = torch.zeros(batch, heads, queries, key.shape[2], dtype=torch.float64)
    full = full if bias is None else full + bias
    for b, h, t in torch.cartesian_prod(*map(torch.arange, (batch, heads, queries))).tolist():
        seen = key.shape[2] - queries + t + 1 if causal else key.shape[2]
        scores = key[b, h, :seen].double() @ query[b, h, t].double() / width**0.5 + full[b, h, t, :seen]
        out[b, h, t] = scores.softmax(0) @ value[b, h, :seen].double()
    return out


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [None, (2, 1, 1, 7), (1, 3, 5, 7), (2, 3, 5, 7)], ids=str)
def test_kernels_equal_a_plain_loop(implementation: str, causal: bool, shape: tuple[int, ...] | None) -> None:
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    bias = None if shape is None else torch.randn(shape)
    with torch.no_grad():
        got = attend(query, key, value, bias=bias, causal=causal, implementation=implementation)
    assert torch.allclose(got.double(), plain(query, key, value, bias, causal), atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("implementation", KERNELS[1:])
@pytest.mark.parametrize(
    "case",
    [
        zoo.case("Data2VecAudioModel"),
        zoo.case("Data2VecTextModel"),
        zoo.case("Data2VecTextForCausalLM"),
        zoo.case("Data2VecTextModel", position_embedding_type="relative_key_query"),
        zoo.case("Data2VecVisionModel", use_relative_position_bias=True, use_shared_relative_position_bias=True),
    ],
    ids=str,
)
def test_kernels_agree_in_every_modality(case: zoo.Case, implementation: str) -> None:
    model, batch = zoo.build(case.name, **case.options, attn_implementation="eager"), zoo.batch(case.name)
    with torch.no_grad():
        wanted = model(**batch)[zoo.main_output(case.name)]
        model.set_attn_implementation(implementation)
        assert model.config.attn_implementation == model.base_model.config.attn_implementation == implementation
        got = model(**batch)[zoo.main_output(case.name)]
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "flash"])
def test_kernels_have_the_same_gradients(implementation: str) -> None:
    gradients = []
    for kind in ("eager", implementation):
        model = zoo.build("Data2VecTextForMaskedLM", attn_implementation=kind).train()
        model(**zoo.text_batch(), **zoo.labels("Data2VecTextForMaskedLM")).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_what_a_kernel_cannot_do_is_said() -> None:
    query, learned = torch.randn(1, 2, 3, 4, requires_grad=True), torch.randn(1, 2, 3, 3, requires_grad=True)

    def call(implementation: str, **options: Any) -> None:
        attend(query, query, query, implementation=implementation, **options)

    with pytest.raises(UserError, match="'flash' cannot run here: on a CPU it has no dropout"):
        call("flash", dropout=0.1)
    with pytest.raises(UserError, match="'flash' cannot run here: on a CPU it cannot train a bias"):
        call("flash", bias=learned)
    with pytest.raises(UserError, match="'flex' cannot run here: it has no dropout"):
        call("flex", dropout=0.1)
    with pytest.raises(UserError, match=r"'flex' .* no backward pass on a CPU"):
        call("flex")
    elsewhere = torch.empty(1, 2, 3, 4, device="meta")
    assert "adds no bias" in str(flash_obstacle(elsewhere, learned, 0.0))
    assert "needs float16 or bfloat16, not float32" in str(flash_obstacle(elsewhere, None, 0.1))
    assert flash_obstacle(elsewhere.half(), None, 0.1) is None
    assert flex_obstacle(elsewhere, learned, 0.0) is None
    with pytest.raises(UserError, match="attn_implementation"):
        zoo.config("Data2VecTextModel", attn_implementation="fast")


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("name", ["Data2VecAudioModel", "Data2VecTextModel", "Data2VecVisionModel"])
def test_attention_weights_are_eager_with_one_warning(
    name: str, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    module._say_eager.cache_clear()
    model, batch = zoo.build(name, attn_implementation=implementation), zoo.batch(name)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="data2vec"):
        for _ in range(2):
            output = model(**batch, output_attentions=True)
    assert len(output.attentions) == model.config.num_hidden_layers
    assert all(torch.allclose(weights.sum(-1), torch.tensor(1.0), atol=1e-5) for weights in output.attentions)
    said = [record for record in caplog.records if "eager" in record.message]
    assert len(said) == (0 if implementation == "eager" else 1)
    with torch.no_grad():
        assert torch.allclose(model(**batch).last_hidden_state, output.last_hidden_state, atol=1e-5)


def test_dropout_and_head_masks_of_the_eager_computation() -> None:
    query = torch.randn(1, 2, 3, 4)
    torch.manual_seed(0)
    out, weights = attend_eager(query, query, query, dropout=0.5, head_mask=torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    assert (weights[:, 1] == 0).all()
    assert (weights[:, 0] == 0).any()
    assert torch.allclose(out, weights @ query)

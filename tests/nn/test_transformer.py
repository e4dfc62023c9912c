"""The Transformer's parts against plain formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.nn.attention import Attention, attend, attend_eager
from data2vec.nn.cache import Cache, LayerCache
from data2vec.nn.masks import causal_bias, expand_head_mask, padding_bias
from data2vec.nn.positions import PositionalConvStack, RelativePositionBias, relative_position_index, text_positions
from data2vec.nn.transformer import DropPath, Transformer, TransformerConfig

SMALL = TransformerConfig(width=16, heads=4, depth=3, hidden=32)


def plain_post_norm(stack: Transformer, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The post-norm block written out, head by head."""
    ffns = []
    for block in stack:
        a = block.attention
        heads = []
        for h in range(a.heads):
            cut = slice(h * a.head_width, (h + 1) * a.head_width)
            q, k, v = (
                F.linear(x, p.weight[cut], None if p.bias is None else p.bias[cut])
                for p in (a.q_proj, a.k_proj, a.v_proj)
            )
            scores = q @ k.transpose(1, 2) / a.head_width**0.5
            if bias is not None:
                scores = scores + bias[:, 0]
            heads.append(scores.softmax(-1) @ v)
        r = block.norm1(x + a.out_proj(torch.cat(heads, -1)))
        f = block.mlp.fc2(F.gelu(block.mlp.fc1(r)))
        x = block.norm2(r + f)
        ffns.append(f)
    return x, ffns


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_post_norm_blocks_equal_the_plain_formula(implementation: str) -> None:
    stack = Transformer(replace(SMALL, implementation=implementation)).eval()
    x = torch.randn(2, 7, 16)
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    bias = padding_bias(padding, x.dtype)
    done = stack(x, bias, blocks=True, ffns=True)
    expected, ffns = plain_post_norm(stack, x, bias)
    torch.testing.assert_close(done.output, expected)
    torch.testing.assert_close(done.blocks[-1], expected)
    for mine, theirs in zip(done.ffns, ffns, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_pre_norm_with_layer_scale() -> None:
    stack = Transformer(replace(SMALL, depth=1, pre_norm=True, layer_scale=0.3, key_bias=False)).eval()
    block = stack[0]
    x = torch.randn(2, 5, 16)
    a, _ = block.attention(block.norm1(x))
    y = x + 0.3 * a
    expected = y + 0.3 * block.mlp(block.norm2(y))
    torch.testing.assert_close(stack(x).output, expected)
    assert block.attention.k_proj.bias is None


def test_a_fully_masked_row_gives_numbers() -> None:
    stack = Transformer(SMALL).eval()
    padding = torch.tensor([[True] * 4, [False] * 4])
    out = stack(torch.randn(2, 4, 16), padding_bias(padding, torch.float32)).output
    assert torch.isfinite(out).all()


def test_padding_does_not_reach_valid_tokens() -> None:
    stack = Transformer(SMALL).eval()
    x = torch.randn(1, 5, 16)
    longer = torch.cat([x, 100 * torch.randn(1, 3, 16)], dim=1)
    padding = torch.tensor([[False] * 5 + [True] * 3])
    padded = stack(longer, padding_bias(padding, x.dtype)).output[:, :5]
    torch.testing.assert_close(padded, stack(x).output, atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    stack = Transformer(replace(SMALL, dropout=0.2)).train()
    x = torch.randn(2, 6, 16, requires_grad=True)
    results = []
    for on in (False, True):
        stack.gradient_checkpointing = on
        torch.manual_seed(7)
        out = stack(x).output.square().sum()
        results.append((out.detach(), *torch.autograd.grad(out, [x, *stack.parameters()])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_layerdrop_keeps_the_number_of_layers() -> None:
    stack = Transformer(replace(SMALL, depth=6, layerdrop=0.5)).train()
    for _ in range(10):
        done = stack(torch.randn(1, 3, 16), blocks=True, ffns=True)
        assert len(done.blocks) == len(done.ffns) == 6


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.3).train()
    kept = drop(torch.ones(10_000, 1))
    assert abs(float(kept.mean()) - 1) < 3 * (0.3 / 0.7 / 10_000) ** 0.5
    assert torch.equal(drop.eval()(torch.ones(3, 1)), torch.ones(3, 1))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_cache_gives_what_the_whole_gives(implementation: str) -> None:
    stack = Transformer(replace(SMALL, implementation=implementation)).eval()
    x = torch.randn(2, 6, 16)
    whole = stack(x, causal=True).output
    cache = Cache.empty(3)
    parts = [stack(x[:, a:b], causal=True, cache=cache).output for a, b in ((0, 2), (2, 5), (5, 6))]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert cache.length == 6


def test_cross_attention_caches_its_context_once() -> None:
    attention = Attention(16, 4, context_width=8).eval()
    context, cache = torch.randn(2, 5, 8), LayerCache()
    x = torch.randn(2, 3, 16)
    expected, _ = attention(x, context=context)
    for _ in range(2):
        torch.testing.assert_close(attention(x, context=context, cache=cache)[0], expected)
    assert cache.length == 5


def test_attend_eager_and_sdpa_agree_causally_with_bias() -> None:
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    bias = torch.randn(1, 3, 4, 6)
    for b in (None, bias):
        expected, weights = attend_eager(q, k, v, bias=b, causal=True)
        torch.testing.assert_close(attend(q, k, v, bias=b, causal=True), expected)
        assert float(weights[0, 0, 0, 3:].abs().max()) == 0.0
    assert causal_bias(2, 2, q)[0, 1] < -1e30


def test_head_mask_shapes() -> None:
    assert expand_head_mask(None, 2) is None
    one, two = expand_head_mask(torch.ones(4), 2), expand_head_mask(torch.ones(2, 4), 2)
    assert one is not None
    assert two is not None
    assert one.shape == two.shape == (2, 1, 4, 1, 1)
    with pytest.raises(ValueError, match="head_mask"):
        expand_head_mask(torch.ones(3, 4), 2)


def test_text_positions_count_valid_tokens_on_either_side() -> None:
    padding = torch.tensor([[False, False, True], [True, False, False]])
    assert text_positions(padding, (2, 3), 1, torch.device("cpu")).tolist() == [[2, 3, 1], [1, 2, 3]]
    assert text_positions(None, (1, 3), 1, torch.device("cpu"), past=4).tolist() == [[6, 7, 8]]


def test_positional_conv_gives_a_clip_the_same_alone_and_padded() -> None:
    stack = PositionalConvStack(16, 5, 4, 3, F.gelu).eval()
    x = torch.randn(1, 9, 16)
    longer = F.pad(x, (0, 0, 0, 6))
    padding = torch.tensor([[False] * 9 + [True] * 6])
    torch.testing.assert_close(stack(longer, padding)[:, :9], stack(x))
    assert float((stack(longer)[:, :9] - stack(x)).abs().max()) > 1e-3  # what the reference does


def test_relative_position_index_on_a_rectangle() -> None:
    rows, columns = 2, 3
    index = relative_position_index(rows, columns)
    for i in range(rows * columns):
        for j in range(rows * columns):
            dy, dx = i // columns - j // columns + rows - 1, i % columns - j % columns + columns - 1
            assert int(index[i + 1, j + 1]) == dy * (2 * columns - 1) + dx
    count = (2 * rows - 1) * (2 * columns - 1)
    assert [int(index[0, 1]), int(index[1, 0]), int(index[0, 0])] == [count, count + 1, count + 2]


def test_relative_bias_is_interpolated_to_another_grid() -> None:
    bias = RelativePositionBias((3, 3), 2)
    with torch.no_grad():
        bias.table.fill_(0.5)
    assert bias((2, 5)).shape == (1, 2, 11, 11)
    torch.testing.assert_close(bias((2, 5)), torch.full((1, 2, 11, 11), 0.5))

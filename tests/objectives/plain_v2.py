"""One step of data2vec 2 written down plainly, operation by operation, as the original computes it.

Every clone is a copy, every convolution is over all tokens with channels first, every target is repeated for every
mask. It is what `Data2Vec2Objective` is held against, in value and in time. Nothing here is padded.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.objectives.v2 import Data2Vec2Objective

Weights = Mapping[str, Tensor]


def plain_loss(task: Data2Vec2Objective, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """Loss sum and number of hidden tokens."""
    student = dict(task.student.named_parameters()) | dict(task.student.named_buffers())
    teacher = dict(task.teacher.encoder.named_parameters()) | dict(task.teacher.encoder.named_buffers())
    config, model, masks = task.config, task.student.config, batch["mask"]
    local = front_door(model, student, batch, train=True)
    with torch.no_grad():
        shared = config.ema.scope != "all"
        seen = local.detach() if shared else front_door(model, teacher, batch, train=False)
        target = targets(config, model, context(model, teacher, seen, None, train=False)[1])
    mask = masks.flatten(0, 1)
    output, _ = context(model, student, local.repeat_interleave(masks.shape[1], 0), mask, train=True)
    extra = model.num_extra_tokens
    pred = decode(task, output[:, extra:], mask, batch.get("noise"))
    target = target.repeat_interleave(masks.shape[1], 0)
    loss = distance(task, pred[mask], target[mask]).sum()
    if config.cls_weight > 0:
        rows = distance(task, output[:, 0], target.mean(1))
        scale = 256 * rows.mean() if config.cls_rows == "mean" else rows.sum()
        loss = loss + config.cls_weight * scale * mask.sum()
    return loss, int(mask.sum())


def distance(task: Data2Vec2Objective, pred: Tensor, target: Tensor) -> Tensor:
    """Of each token, with the loss scale."""
    error = pred - target
    beta = task.config.loss_beta
    if beta > 0:
        small = error.abs() < beta
        each = torch.where(small, error.square() / (2 * beta), error.abs() - beta / 2)
    else:
        each = error.square()
    return each.sum(-1) * task.scale


def front_door(model: object, w: Weights, batch: Mapping[str, Tensor], *, train: bool) -> Tensor:
    """Local features (B, T, D)."""
    if "input_values" in batch:
        x = batch["input_values"][:, None]
        for i, stride in enumerate(model.conv_stride):
            x = F.conv1d(x, w[f"frontend.convs.{i}.conv.weight"], stride=stride)
            x = norm(x.transpose(1, 2), w, f"frontend.convs.{i}.norm", 1e-5).transpose(1, 2)
            x = F.gelu(x)
        return linear(norm(x.transpose(1, 2), w, "frontend.norm", model.layer_norm_eps), w, "frontend.projection")
    if "pixel_values" in batch:
        name = "frontend.projection"
        x = F.conv2d(batch["pixel_values"], w[f"{name}.weight"], w[f"{name}.bias"], stride=model.patch_size)
        return x.flatten(2).transpose(1, 2)
    ids = batch["input_ids"]
    places = torch.arange(ids.shape[1]) + model.pad_token_id + 1
    x = w["frontend.words.weight"][ids] + w["frontend.positions.weight"][places]
    return drop(norm(x, w, "frontend.norm", model.layer_norm_eps), model.hidden_dropout_prob, train)


def context(model: object, w: Weights, x: Tensor, mask: Tensor | None, *, train: bool) -> tuple[Tensor, list[Tensor]]:
    """The last block's output, extra tokens first, and the feed-forward outputs of the shared blocks, without them."""
    rows, tokens, width = x.shape
    if "encoder.fixed_positions" in w:
        x = x + w["encoder.fixed_positions"]
    keep = None
    if mask is not None:
        keep = (~mask).nonzero()[:, 1].view(rows, -1)
        x = x * (~mask)[..., None] if "encoder.positions.0.conv.weight" in w else x
    x = x + convolved(model, w, x) if "encoder.positions.0.conv.weight" in w else x
    bias = alibi(w["encoder.alibi_scale"], tokens, model.num_attention_heads) if model.use_alibi else None
    if keep is not None:
        x = x.gather(1, keep[..., None].expand(-1, -1, width))
        if bias is not None:
            bias = bias.expand(-1, rows, -1, -1, -1)
            heads = bias.shape[2]
            index = keep[None, :, None, :, None].expand(len(bias), -1, heads, -1, tokens)
            bias = bias.gather(3, index)
            index = keep[None, :, None, None, :].expand(len(bias), -1, heads, keep.shape[1], -1)
            bias = bias.gather(4, index)
    extra = model.num_extra_tokens
    if extra:
        x = torch.cat([w["encoder.extra_tokens"].expand(rows, -1, -1), x], 1)
        bias = None if bias is None else F.pad(bias, (extra, 0, extra, 0))
    if "encoder.norm.weight" in w:
        x = norm(x, w, "encoder.norm", model.layer_norm_eps)
    x = drop(x, model.prenet_dropout, train)
    ffns = []
    for i in range(model.num_hidden_layers):
        layer_bias = None if bias is None else bias[i if len(bias) > 1 else 0]
        x, ffn = block(model, w, f"encoder.blocks.{i}", x, layer_bias, train)
        ffns.append(ffn[:, extra:])
    return x, ffns[model.prenet_depth :]


def convolved(model: object, w: Weights, x: Tensor) -> Tensor:
    """The relative positional convolutions of (R, T, D)."""
    x, tokens = x.transpose(1, 2), x.shape[1]
    for i in range(model.num_conv_pos_embeddings):
        name = f"encoder.positions.{i}.conv"
        groups, pad = model.num_conv_pos_embedding_groups, model.conv_pos_kernel_size // 2
        x = F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=pad, groups=groups)[..., :tokens]
        x = F.gelu(F.layer_norm(x.transpose(1, 2), x.shape[1:2])).transpose(1, 2)
    return x.transpose(1, 2)


def alibi(scale: Tensor, tokens: int, heads: int) -> Tensor:
    """(layers, 1, heads, T, T); `heads` is a power of two here."""
    slopes = torch.tensor([2 ** (-8 * (i + 1) / heads) for i in range(heads)])
    far = torch.tensor([[-abs(i - j) for j in range(tokens)] for i in range(tokens)], dtype=torch.float32)
    return (slopes[:, None, None] * far)[None, None] * scale.clamp(min=0)[:, None]


def block(model: object, w: Weights, name: str, x: Tensor, bias: Tensor | None, train: bool) -> tuple[Tensor, Tensor]:
    """A post-norm block's output and feed-forward output."""
    hidden, attention = dropouts(model)
    heads = model.num_attention_heads
    q, k, v = (
        linear(x, w, f"{name}.attention.{part}_proj").view(*x.shape[:2], heads, -1).transpose(1, 2) for part in "qkv"
    )
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores if bias is None else scores + bias
    mixed = (drop(scores.softmax(-1), attention, train) @ v).transpose(1, 2).reshape(x.shape)
    x = norm(
        x + drop(linear(mixed, w, f"{name}.attention.out_proj"), hidden, train),
        w,
        f"{name}.norm1",
        model.layer_norm_eps,
    )
    ffn = linear(F.gelu(linear(x, w, f"{name}.mlp.fc1")), w, f"{name}.mlp.fc2")
    return norm(x + drop(ffn, hidden, train), w, f"{name}.norm2", model.layer_norm_eps), ffn


def dropouts(model: object) -> tuple[float, float]:
    """Of branches and of attention weights."""
    if hasattr(model, "hidden_dropout"):
        return model.hidden_dropout, model.attention_dropout
    return model.hidden_dropout_prob, model.attention_probs_dropout_prob


def targets(config: object, model: object, ffns: list[Tensor]) -> Tensor:
    """(B, T, D)."""
    kinds = {"layer": 2, "instance": 1}

    def normed(x: Tensor, kind: str) -> Tensor:
        if kind == "none":
            return x
        axis = kinds[kind]
        return (x - x.mean(axis, keepdim=True)) / (x.var(axis, unbiased=False, keepdim=True) + 1e-5).sqrt()

    top = [normed(x, config.target.layer_norm) for x in ffns[-config.target.layers :]]
    return normed(sum(top) / len(top), config.target.final_norm)


def decode(task: Data2Vec2Objective, seen: Tensor, mask: Tensor, noise: Tensor | None) -> Tensor:
    """Predictions of all tokens (R, T, D)."""
    c, w = task.config.decoder, dict(task.decoder.named_parameters())
    rows, tokens = mask.shape
    seen = drop(seen, c.dropout, task.training)
    if noise is None:
        noise = torch.randn(rows, tokens, seen.shape[-1]) * task.config.noise_std
    hidden = noise.reshape(rows, tokens, -1)[mask].view(rows, -1, seen.shape[-1])
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    restore = order.argsort(1)
    x = torch.cat([seen, hidden], 1).gather(1, restore[..., None].expand(-1, -1, seen.shape[-1]))
    x = x.transpose(1, 2)
    side = int(tokens**0.5)
    x = x if c.dimensions == 1 else x.reshape(rows, -1, side, side)
    for i in range(c.layers):
        convolve = F.conv1d if c.dimensions == 1 else F.conv2d
        weight, bias = w[f"layers.{i}.conv.weight"], w[f"layers.{i}.conv.bias"]
        y = convolve(x, weight, bias, padding=c.kernel // 2, groups=c.groups)
        y = F.gelu(F.layer_norm(y.movedim(1, -1), y.shape[1:2])).movedim(-1, 1)
        x = x + y if c.residual and x.shape == y.shape else y
    x = x.flatten(2).transpose(1, 2)
    for i in range(c.projection_layers):
        x = linear(F.gelu(x) if i else x, w, f"projection.{2 * i}")
    return x


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """``x W^T + b``."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    """Layer norm with affine."""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def drop(x: Tensor, rate: float, train: bool) -> Tensor:
    """Dropout."""
    return F.dropout(x, rate, train)

"""Tensor names of the original implementations beside ours, in the order in which the originals write them.

A row renames the dotted segments at the start of a name; ``{}`` is a layer number. On our side a name belongs to the
base model (``encoder...``), to the pre-training head (``predictor...``) or to a task's head (``lm_head...``,
``classifier...``). Sources: fairseq `data2vec_audio.py`, `data2vec_text.py`; data2vec_vision `modeling_cyclical.py`,
`modeling_finetune.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.tensor_files import release

Row = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """One original layout.

    Attributes:
        rows: (original, ours), in the original's order.
        old: (older spelling, spelling in `rows`), each applied once, in order.
        recomputed: pattern of a buffer -> why nothing is lost without it.
        fused: q, k and v are one tensor ``attention.qkv``; ours are three.
    """

    rows: Sequence[Row]
    old: Sequence[Row] = ()
    recomputed: Mapping[str, str] | None = None
    fused: bool = False

    def upgrade(self, name: str) -> str:
        """An older spelling -> the spelling in `rows`."""
        for pattern, template in self._old:
            name = pattern.sub(template, name, count=1)
        return name

    def ours(self, name: str) -> str | None:
        """Our name, None where the table has no row."""
        return _rename(name, self._reading)

    def original(self, name: str) -> str | None:
        """The original's name, None where the table has no row."""
        return _rename(name, self._writing)

    def why_dropped(self, name: str) -> str | None:
        """Why a tensor of this name is left out without loss, None if it is not known."""
        return next((why for pattern, why in (self.recomputed or {}).items() if re.search(pattern, name)), None)

    def order(self, name: str) -> tuple[int, int, int, int]:
        """Sort key that puts the original's names into its own order: groups, layers, rows, weight before bias."""
        for index, (pattern, _) in enumerate(self._reading):
            if found := pattern.match(name):
                start = self.rows[index][0].partition("{}")[0]
                group = next(i for i, (row, _) in enumerate(self.rows) if row.partition("{}")[0] == start)
                layer = int(found.group(1)) if pattern.groups else 0
                return (group, layer, index, int(name.endswith("bias")))
        return (len(self.rows), 0, 0, 0)

    @cached_property
    def _reading(self) -> list[tuple[re.Pattern[str], str]]:
        return [_compile(original, ours) for original, ours in self.rows]

    @cached_property
    def _writing(self) -> list[tuple[re.Pattern[str], str]]:
        return [_compile(ours, original) for original, ours in self.rows]

    @cached_property
    def _old(self) -> list[tuple[re.Pattern[str], str]]:
        return [_compile(old, new) for old, new in self.old]


def _compile(source: str, target: str) -> tuple[re.Pattern[str], str]:
    pattern = re.escape(source).replace(r"\{\}", r"(\d+)")
    first, *rest = target.split("{}")
    template = first + "".join(f"\\g<{number}>{part}" for number, part in enumerate(rest, start=1))
    return re.compile(rf"{pattern}(?=\.|$)"), template


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if found := pattern.match(name):
            return found.expand(template) + name[found.end() :]
    return None


def split_qkv(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One ``...attention.qkv.weight`` (3 D, D) or ``.bias`` (3 D,) -> q, k and v, views of it."""
    if ".attention.qkv." not in name:
        return {name: tensor}
    if not tensor.dim() or tensor.shape[0] % 3:
        raise CheckpointError(f"{name}: {tuple(tensor.shape)} cannot be q, k and v in one")
    parts = tensor.chunk(3)
    return {name.replace(".qkv.", f".{letter}_proj."): part for letter, part in zip("qkv", parts, strict=True)}


def fuse_qkv(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_qkv`, for those kinds (weight, bias) that all three projections have."""
    fused: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = [name.replace(".attention.q_proj.", f".attention.{letter}_proj.") for letter in "qkv"]
        if len(set(names)) == 3 and all(n in tensors for n in names):
            fused[name.replace(".q_proj.", ".qkv.")] = torch.cat([tensors[n] for n in names])
            for part in names:
                release(tensors[part])
        elif not (".attention.k_proj." in name or ".attention.v_proj." in name) or not _is_fused(name, tensors):
            fused[name] = tensor
    return fused


def _is_fused(name: str, tensors: Mapping[str, Tensor]) -> bool:
    return all(re.sub(r"\.[kv]_proj\.", f".{letter}_proj.", name) in tensors for letter in "qkv")


def _post_norm_layer(original: str) -> list[Row]:
    """A fairseq `TransformerSentenceEncoderLayer`."""
    attention = [
        (f"{original}.self_attn.{p}_proj", f"encoder.blocks.{{}}.attention.{p}_proj") for p in ("k", "v", "q", "out")
    ]
    return [
        *attention,
        (f"{original}.self_attn_layer_norm", "encoder.blocks.{}.norm1"),
        (f"{original}.fc1", "encoder.blocks.{}.mlp.fc1"),
        (f"{original}.fc2", "encoder.blocks.{}.mlp.fc2"),
        (f"{original}.final_layer_norm", "encoder.blocks.{}.norm2"),
    ]


FAIRSEQ_AUDIO = Table(
    rows=[
        ("mask_emb", "mask_embedding"),
        ("feature_extractor.conv_layers.{}.0", "frontend.convs.{}.conv"),
        ("feature_extractor.conv_layers.{}.2.1", "frontend.convs.{}.norm"),
        ("post_extract_proj", "frontend.projection"),
        ("encoder.pos_conv.{}.0", "encoder.positions.{}.conv"),
        *_post_norm_layer("encoder.layers.{}"),
        ("encoder.layer_norm", "encoder.norm"),
        ("layer_norm", "frontend.norm"),
        ("final_proj", "predictor"),
        ("w2v_encoder.proj", "lm_head"),
    ],
    old=[("final_proj.0", "final_proj")],
)

TEXT_HEAD = "sentence_classification_head"  # what fairseq's GLUE recipe calls it
_SENTENCE = "encoder.sentence_encoder"
FAIRSEQ_TEXT = Table(
    rows=[
        (f"{_SENTENCE}.embed_tokens", "frontend.words"),
        (f"{_SENTENCE}.embed_positions", "encoder.positions"),
        (f"{_SENTENCE}.layernorm_embedding", "encoder.norm"),
        *_post_norm_layer(f"{_SENTENCE}.layers.{{}}"),
        ("encoder.regression_head.{}", "predictor.{}"),
        ("encoder.lm_head", "lm_head"),
        (f"classification_heads.{TEXT_HEAD}", "classifier"),
    ],
    old=[
        ("decoder", "encoder"),
        (f"{_SENTENCE}.emb_layer_norm", f"{_SENTENCE}.layernorm_embedding"),
        ("encoder.lm_head.0", "encoder.regression_head.0"),
        ("encoder.lm_head.2", "encoder.regression_head.2"),
    ],
    recomputed={
        r"(^|\.)version$": "a format number, always 3",
        r"^encoder\.lm_head\.weight$": "tied: the word embeddings",
    },
)

BEIT = Table(
    rows=[
        ("cls_token", "encoder.cls_token"),
        ("mask_token", "mask_embedding"),
        ("pos_embed", "encoder.positions"),
        ("patch_embed.proj", "frontend.projection"),
        ("rel_pos_bias.relative_position_bias_table", "encoder.shared_bias.table"),
        ("blocks.{}.gamma_1", "encoder.blocks.{}.scale1"),
        ("blocks.{}.gamma_2", "encoder.blocks.{}.scale2"),
        ("blocks.{}.norm1", "encoder.blocks.{}.norm1"),
        ("blocks.{}.attn.q_bias", "encoder.blocks.{}.attention.q_proj.bias"),
        ("blocks.{}.attn.v_bias", "encoder.blocks.{}.attention.v_proj.bias"),
        ("blocks.{}.attn.relative_position_bias_table", "encoder.biases.{}.table"),
        ("blocks.{}.attn.qkv", "encoder.blocks.{}.attention.qkv"),
        ("blocks.{}.attn.proj", "encoder.blocks.{}.attention.out_proj"),
        ("blocks.{}.norm2", "encoder.blocks.{}.norm2"),
        ("blocks.{}.mlp.fc1", "encoder.blocks.{}.mlp.fc1"),
        ("blocks.{}.mlp.fc2", "encoder.blocks.{}.mlp.fc2"),
        ("norm", "norm"),
        ("lm_head", "predictor"),
        ("fc_norm", "pooler"),
        ("head", "classifier"),
    ],
    recomputed={r"relative_position_index$": "computed from the grid (an EMA may have corrupted it)"},
    fused=True,
)

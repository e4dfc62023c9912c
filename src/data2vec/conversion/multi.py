"""Names of data2vec 2 (fairseq `data2vec_multi`): one modality's encoder, shared blocks after its own, a decoder.

Our blocks are numbered through, prenet first, so the table depends on how many there are: every row is written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from data2vec.conversion.originals import Original
from data2vec.conversion.tables import TEXT_HEAD, Row, Table

_MODALITIES = {"AUDIO": "audio", "IMAGE": "vision", "TEXT": "text"}
_BLOCK: list[Row] = [
    ("norm1", "norm1"),
    ("attn.qkv", "attention.qkv"),
    ("attn.proj", "attention.out_proj"),
    ("norm2", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
]
_LOCAL: dict[str, list[Row]] = {
    "audio": [
        ("local_encoder.conv_layers.{}.0", "frontend.convs.{}.conv"),
        ("local_encoder.conv_layers.{}.2.1", "frontend.convs.{}.norm"),
        ("project_features.1", "frontend.norm"),
        ("project_features.2", "frontend.projection"),
    ],
    "vision": [
        ("local_encoder.proj", "frontend.projection"),
        ("fixed_positional_encoder.positions", "encoder.fixed_positions"),
    ],
    "text": [
        ("local_encoder.embed_tokens", "frontend.words"),
        ("local_encoder.embed_positions", "frontend.positions"),
        ("local_encoder.layernorm_embedding", "frontend.norm"),
    ],
}
_WIDENED: list[Row] = [
    ("local_encoder.0.proj", "frontend.projection"),
    ("local_encoder.1", "frontend.widening"),
    ("fixed_positional_encoder.positions", "encoder.fixed_positions"),
]
_HEADS: dict[str, list[Row]] = {
    "audio": [("w2v_encoder.proj", "lm_head")],
    "vision": [("fc_norm", "pooler"), ("head", "classifier")],
    "text": [(f"classification_heads.{TEXT_HEAD}", "classifier")],
}
_GONE = {
    r"\.encoder_mask$": "a mask token that the released code does not use either",
    r"(^|\.)shared_decoder\.": "a decoder for several modalities, not in released models",
    r"(^|\.)recon_proj\.": "pixel reconstruction, weight 0 in every released recipe",
}


def multi_layout(
    modality: str, prenet: int, depth: int, *, deep_projection: bool, position_norm: bool = False, widened: bool = False
) -> Original:
    """The layout of one data2vec 2 model.

    Args:
        modality: ``audio``, ``text`` or ``vision``.
        prenet: blocks of the modality.
        depth: all blocks.
        deep_projection: the decoder ends in two linear layers, not one.
        position_norm: speech, a norm in front of the positional convolutions (`conv_pos_pre_ln`).
        widened: images, patches are embedded at another width than the model's.
    """
    original = {ours: theirs for theirs, ours in _MODALITIES.items()}[modality]
    stem = f"modality_encoders.{original}."
    places = [f"{stem}context_encoder.blocks.{i}" for i in range(prenet)] + [
        f"blocks.{i}" for i in range(depth - prenet)
    ]
    blocks = [(f"{place}.{a}", f"encoder.blocks.{i}.{b}") for i, place in enumerate(places) for a, b in _BLOCK]
    own = len(_BLOCK) * prenet
    relative = f"{stem}relative_positional_encoder"
    stack = f"{relative}.1" if position_norm else relative
    convolutions = [(f"{stack}.{i + 1}.0", f"encoder.positions.{i}.conv") for i in range(32)]
    convolutions = [*([(f"{relative}.0", "encoder.position_norm")] if position_norm else []), *convolutions]
    local = _WIDENED if widened else _LOCAL[modality]
    ends = [0, 2] if deep_projection else [0]
    projection = [(f"proj.{i}" if deep_projection else "proj", f"predictor.projection.{i}") for i in ends]
    decoder = [("blocks.{}.0", "predictor.layers.{}.conv"), *projection]
    rows = [
        (f"{stem}alibi_scale", "encoder.alibi_scale"),
        (f"{stem}extra_tokens", "encoder.extra_tokens"),
        *((stem + a, b) for a, b in local),
        *convolutions,
        *blocks[:own],
        (f"{stem}context_encoder.norm", "encoder.norm"),
        *((f"{stem}decoder.{a}", b) for a, b in decoder),
        *blocks[own:],
        *_HEADS[modality],
    ]
    old = [(f"{stem}positional_encoder.pos_embed", f"{stem}fixed_positional_encoder.positions")]
    table = Table(rows=rows, old=old, recomputed=_GONE, fused=True)
    told = {"prenet_depth": prenet} | ({"conv_pos_pre_norm": position_norm} if modality == "audio" else {})
    return Original(f"fairseq data2vec 2 {modality}", modality, 2, table, "_ema", "", told)


def recognize_multi(names: Iterable[str]) -> Original | None:
    """The layout of a model with these names (without prefix); None if it is not of data2vec 2."""
    names = set(names)
    found = {name.split(".")[1] for name in names if name.startswith("modality_encoders.")} & _MODALITIES.keys()
    if len(found) != 1:
        return None
    original = found.pop()
    stem = f"modality_encoders.{original}."
    prenet, shared = (_count(names, rf"{re.escape(place)}blocks\.(\d+)\.") for place in (f"{stem}context_encoder.", ""))
    deep = any(name.startswith(f"{stem}decoder.proj.2.") for name in names)
    return multi_layout(
        _MODALITIES[original],
        prenet,
        prenet + shared,
        deep_projection=deep,
        position_norm=f"{stem}relative_positional_encoder.0.weight" in names,
        widened=f"{stem}local_encoder.0.proj.weight" in names,
    )


def _count(names: set[str], pattern: str) -> int:
    return len({found.group(1) for name in names if (found := re.match(pattern, name))})

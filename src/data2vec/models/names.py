"""Tensor names: ours on the left, the published ones (transformers 5.x) on the right.

One bijective table of renames a modality. ``{}`` stands for a layer number. A rule renames whole dotted segments at the
start of a name. `legacy` rows are older spellings that are read, never written. Pure renames, no arithmetic: what is
stored is what is computed with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Row = tuple[str, str]


@dataclass(frozen=True)
class NameTable:
    """Renames of one modality's base model.

    Attributes:
        prefix: what stands before the base model's names in a model with a head.
        rows: (ours, published), the most specific first.
        legacy: (newer published or ours, older published) spellings, applied when reading.
        ignored: patterns of published names that carry nothing (recomputed buffers).
    """

    prefix: str
    rows: Sequence[Row]
    legacy: Sequence[Row] = ()
    ignored: Sequence[str] = ()

    def published(self, name: str) -> str:
        """Our name -> the name on disk."""
        head, rest = self._split(name)
        return head + _rename(rest, self._forward)

    def ours(self, name: str) -> str | None:
        """The name on disk -> our name; None where the tensor carries nothing."""
        if any(re.search(pattern, name) for pattern in self.ignored):
            return None
        head, rest = self._split(_rename(name, self._old))
        return head + _rename(rest, self._backward)

    def _split(self, name: str) -> tuple[str, str]:
        start = self.prefix + "."
        return (start, name[len(start) :]) if name.startswith(start) else ("", name)

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], str]]:
        return _compile(self.rows)

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str]]:
        return _compile((published, ours) for ours, published in self.rows)

    @cached_property
    def _old(self) -> list[tuple[re.Pattern[str], str]]:
        return _compile((old, new) for new, old in self.legacy)


def _compile(rows: Iterable[Row]) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for source, target in rows:
        pattern = re.escape(source).replace(r"\{\}", r"(\d+)")
        parts = target.split("{}")
        template = "".join(part if i == 0 else f"\\g<{i}>{part}" for i, part in enumerate(parts))
        rules.append((re.compile(rf"^{pattern}(?=\.|$)"), template))
    return rules


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, template in rules:
        renamed, count = pattern.subn(template, name, count=1)
        if count:
            return renamed
    return name


AUDIO_HEADS = [
    ("mix.weights", "layer_weights"),
    ("head.letters", "lm_head"),
    ("head.embedding", "feature_extractor"),
    ("head.projector", "projector"),
    ("head.tdnn", "tdnn"),
    ("head.objective", "objective"),
    ("head.classifier", "classifier"),
]

AUDIO = NameTable(
    prefix="data2vec_audio",
    rows=[
        ("mask_embedding", "masked_spec_embed"),
        ("frontend.convs.{}.conv", "feature_extractor.conv_layers.{}.conv"),
        ("frontend.convs.{}.norm", "feature_extractor.conv_layers.{}.layer_norm"),
        ("frontend.norm", "feature_projection.layer_norm"),
        ("frontend.projection", "feature_projection.projection"),
        ("encoder.positions.{}.conv", "encoder.pos_conv_embed.layers.{}.conv"),
        ("encoder.norm", "encoder.layer_norm"),
        ("encoder.blocks.{}.attention", "encoder.layers.{}.attention"),
        ("encoder.blocks.{}.norm1", "encoder.layers.{}.layer_norm"),
        ("encoder.blocks.{}.mlp.fc1", "encoder.layers.{}.feed_forward.intermediate_dense"),
        ("encoder.blocks.{}.mlp.fc2", "encoder.layers.{}.feed_forward.output_dense"),
        ("encoder.blocks.{}.norm2", "encoder.layers.{}.final_layer_norm"),
        ("adapter.projection", "adapter.proj"),
        ("adapter.norm", "adapter.proj_layer_norm"),
        *AUDIO_HEADS,
    ],
)

TEXT_HEADS = [
    ("head.dense", "lm_head.dense"),
    ("head.norm", "lm_head.layer_norm"),
    ("head.decoder", "lm_head.decoder"),
    ("head.bias", "lm_head.bias"),
    ("head.hidden", "classifier.dense"),
    ("head.labels", "classifier.out_proj"),
    ("span", "qa_outputs"),
]

TEXT = NameTable(
    prefix="data2vec_text",
    rows=[
        ("frontend.words", "embeddings.word_embeddings"),
        ("encoder.positions", "embeddings.position_embeddings"),
        ("encoder.token_types", "embeddings.token_type_embeddings"),
        ("encoder.norm", "embeddings.LayerNorm"),
        ("encoder.blocks.{}.attention.q_proj", "encoder.layer.{}.attention.self.query"),
        ("encoder.blocks.{}.attention.k_proj", "encoder.layer.{}.attention.self.key"),
        ("encoder.blocks.{}.attention.v_proj", "encoder.layer.{}.attention.self.value"),
        ("encoder.blocks.{}.attention.distance", "encoder.layer.{}.attention.self.distance_embedding"),
        ("encoder.blocks.{}.attention.out_proj", "encoder.layer.{}.attention.output.dense"),
        ("encoder.blocks.{}.norm1", "encoder.layer.{}.attention.output.LayerNorm"),
        ("encoder.blocks.{}.cross_attention.q_proj", "encoder.layer.{}.crossattention.self.query"),
        ("encoder.blocks.{}.cross_attention.k_proj", "encoder.layer.{}.crossattention.self.key"),
        ("encoder.blocks.{}.cross_attention.v_proj", "encoder.layer.{}.crossattention.self.value"),
        ("encoder.blocks.{}.cross_attention.out_proj", "encoder.layer.{}.crossattention.output.dense"),
        ("encoder.blocks.{}.cross_norm", "encoder.layer.{}.crossattention.output.LayerNorm"),
        ("encoder.blocks.{}.mlp.fc1", "encoder.layer.{}.intermediate.dense"),
        ("encoder.blocks.{}.mlp.fc2", "encoder.layer.{}.output.dense"),
        ("encoder.blocks.{}.norm2", "encoder.layer.{}.output.LayerNorm"),
        ("pooler", "pooler.dense"),
        *TEXT_HEADS,
    ],
    ignored=[r"embeddings\.(position_ids|token_type_ids)$"],
)

VISION_HEADS = [
    ("pyramid.four.{}", "fpn1.{}"),
    ("pyramid.two.{}", "fpn2.{}"),
    ("decoder.pools.{}", "decode_head.psp_modules.blocks.{}"),
    ("decoder.bottleneck", "decode_head.psp_bottleneck"),
    ("decoder.laterals.{}", "decode_head.lateral_convs.{}"),
    ("decoder.smoothers.{}", "decode_head.fpn_convs.{}"),
    ("decoder.fusion", "decode_head.fpn_bottleneck"),
    ("decoder.classifier", "decode_head.classifier"),
    ("auxiliary", "auxiliary_head"),
]

VISION = NameTable(
    prefix="data2vec_vision",
    rows=[
        ("mask_embedding", "embeddings.mask_token"),
        ("frontend.projection", "embeddings.patch_embeddings.projection"),
        ("encoder.cls_token", "embeddings.cls_token"),
        ("encoder.positions", "embeddings.position_embeddings"),
        ("encoder.shared_bias.table", "encoder.relative_position_bias.relative_position_bias_table"),
        (
            "encoder.biases.{}.table",
            "encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table",
        ),
        ("encoder.blocks.{}.attention.q_proj", "encoder.layer.{}.attention.attention.query"),
        ("encoder.blocks.{}.attention.k_proj", "encoder.layer.{}.attention.attention.key"),
        ("encoder.blocks.{}.attention.v_proj", "encoder.layer.{}.attention.attention.value"),
        ("encoder.blocks.{}.attention.out_proj", "encoder.layer.{}.attention.output.dense"),
        ("encoder.blocks.{}.scale1", "encoder.layer.{}.lambda_1"),
        ("encoder.blocks.{}.scale2", "encoder.layer.{}.lambda_2"),
        ("encoder.blocks.{}.norm1", "encoder.layer.{}.layernorm_before"),
        ("encoder.blocks.{}.norm2", "encoder.layer.{}.layernorm_after"),
        ("encoder.blocks.{}.mlp.fc1", "encoder.layer.{}.intermediate.dense"),
        ("encoder.blocks.{}.mlp.fc2", "encoder.layer.{}.output.dense"),
        ("norm", "layernorm"),
        ("pooler", "pooler.layernorm"),
        *VISION_HEADS,
    ],
    legacy=[  # transformers 4.x
        ("decode_head.psp_modules.blocks.{}.conv.convolution", "decode_head.psp_modules.{}.1.conv"),
        ("decode_head.psp_modules.blocks.{}.conv.normalization", "decode_head.psp_modules.{}.1.bn"),
        ("decode_head.psp_bottleneck.convolution", "decode_head.bottleneck.conv"),
        ("decode_head.psp_bottleneck.normalization", "decode_head.bottleneck.bn"),
        ("decode_head.lateral_convs.{}.convolution", "decode_head.lateral_convs.{}.conv"),
        ("decode_head.lateral_convs.{}.normalization", "decode_head.lateral_convs.{}.bn"),
        ("decode_head.fpn_convs.{}.convolution", "decode_head.fpn_convs.{}.conv"),
        ("decode_head.fpn_convs.{}.normalization", "decode_head.fpn_convs.{}.bn"),
        ("decode_head.fpn_bottleneck.convolution", "decode_head.fpn_bottleneck.conv"),
        ("decode_head.fpn_bottleneck.normalization", "decode_head.fpn_bottleneck.bn"),
        ("auxiliary_head.convs.{}.convolution", "auxiliary_head.convs.{}.conv"),
        ("auxiliary_head.convs.{}.normalization", "auxiliary_head.convs.{}.bn"),
        ("auxiliary_head.conv_cat.convolution", "auxiliary_head.conv_cat.conv"),
        ("auxiliary_head.conv_cat.normalization", "auxiliary_head.conv_cat.bn"),
    ],
    ignored=[r"relative_position_index$"],
)

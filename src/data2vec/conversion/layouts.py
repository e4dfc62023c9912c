"""Which layout of the original code a set of names is of, and in which layout a model of ours is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.multi import multi_layout, recognize_multi
from data2vec.conversion.originals import AUDIO, TEXT, VISION, Original, bare_name
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig

_FIRST = {layout.modality: layout for layout in (AUDIO, TEXT, VISION)}


def recognize(model: Mapping[str, Any]) -> Original | None:
    """Which original layout these names are of; None if of none.

    Raises:
        CheckpointError: names of a relative that is no data2vec (wav2vec 2.0, HuBERT).
    """
    names = {bare_name(str(name)) for name in model}
    if (second := recognize_multi(names)) is not None:
        return second
    if "feature_extractor.conv_layers.0.0.weight" in names and "encoder.layers.0.fc1.weight" in names:
        if "encoder.pos_conv.0.0.weight" not in names:
            raise CheckpointError(
                "a wav2vec 2.0 or HuBERT checkpoint: its positional convolution (encoder.pos_conv.0.weight_g) and its "
                "first layer's group norm are not data2vec's"
            )
        return AUDIO
    if any(f"{part}.sentence_encoder.embed_tokens.weight" in names for part in ("encoder", "decoder")):
        return TEXT
    if {"cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= names:
        return VISION
    return None


def layout_of(modality: str, version: int, config: PretrainedConfig, predictor: Mapping[str, Any]) -> Original:
    """The original layout that holds such a model."""
    if version == 1:
        return _FIRST[modality]
    assert isinstance(config, Data2Vec2AudioConfig | Data2Vec2TextConfig | Data2Vec2VisionConfig)
    return multi_layout(
        modality,
        config.prenet_depth,
        config.num_hidden_layers,
        deep_projection="projection.2.weight" in predictor,
        position_norm=isinstance(config, Data2Vec2AudioConfig) and config.conv_pos_pre_norm,
        widened=isinstance(config, Data2Vec2VisionConfig) and config.patch_embed_dim is not None,
    )

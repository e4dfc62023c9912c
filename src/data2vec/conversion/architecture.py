"""A model's configuration from the shapes of its tensors; from stored settings only what no shape shows (P15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.shapes import (
    Given,
    Notes,
    Tensors,
    block_fields,
    conv_strides,
    count_layers,
    dropout_rates,
    head_count,
    patch_grid,
    square,
)
from data2vec.conversion.values import Settings
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.vision.config import Data2VecVisionConfig

Kind = tuple[str, int]  # modality, version


def infer(
    kind: Kind, tensors: Tensors, settings: Settings, overrides: Given, known: Given | None = None
) -> tuple[PretrainedConfig, Notes]:
    """The configuration of a checkpoint.

    Args:
        kind: ``audio``, ``text`` or ``vision``, and the version of data2vec.
        tensors: our names.
        settings: what the checkpoint stored beside its tensors.
        overrides: configuration fields that the user gave; they win.
        known: fields that the layout's names told.

    Returns:
        The configuration, and for each field that no shape decides where its value came from.

    Raises:
        CheckpointError: the tensors make no such model.
        UserError: an override that the configuration refuses.
    """
    notes: Notes = {}
    read, config = _KINDS[kind]
    try:
        fields = read(tensors, settings, overrides, notes)
    except CheckpointError:
        raise
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"no {kind[0]} model: a tensor is missing or has an odd shape ({error})") from error
    notes |= {name: f"{value} (given)" for name, value in overrides.items()}
    return config(**{**fields, **(known or {}), **overrides}), notes


def _audio(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    convs = count_layers(tensors, "frontend.convs.{}.conv.weight")
    if "frontend.convs.0.norm.weight" not in tensors:
        raise CheckpointError("extractor_mode=default: data2vec's feature extractor has a layer norm a layer, not this")
    kernels = [tensors[f"frontend.convs.{i}.conv.weight"] for i in range(convs)]
    width = tensors["frontend.projection.weight"].shape[0]
    positions = count_layers(tensors, "encoder.positions.{}.conv.weight")
    _require_post_norm(settings)
    fields: dict[str, Any] = {
        **block_fields(tensors),
        "hidden_size": width,
        "num_attention_heads": head_count(width, settings.whole("encoder_attention_heads", "num_heads"), given, notes),
        "conv_dim": tuple(kernel.shape[0] for kernel in kernels),
        "conv_kernel": tuple(kernel.shape[2] for kernel in kernels),
        "conv_stride": conv_strides(
            settings.text("conv_feature_layers", "modalities.audio.feature_encoder_spec"), convs, given, notes
        ),
        "conv_bias": "frontend.convs.0.conv.bias" in tensors,
        "num_conv_pos_embeddings": positions,
        "layer_norm_eps": 1e-5,
    }
    if positions:
        kernel = tensors["encoder.positions.0.conv.weight"]
        fields |= {"conv_pos_kernel_size": kernel.shape[2], "num_conv_pos_embedding_groups": width // kernel.shape[1]}
    if "mask_embedding" not in tensors:
        fields |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    if "lm_head.weight" in tensors:
        fields["vocab_size"] = tensors["lm_head.weight"].shape[0]
    stored = {
        "hidden_dropout": "dropout", "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "layerdrop": "encoder_layerdrop", "feat_proj_dropout": "dropout_input",
    }  # fmt: skip
    return fields | dropout_rates(settings, stored, notes)


def _text(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    vocabulary, width = tensors["frontend.words.weight"].shape
    paths = ("transformer.encoder.attention_heads", "encoder_attention_heads")
    fields = {
        **block_fields(tensors),
        "hidden_size": width,
        "vocab_size": vocabulary,
        "num_attention_heads": head_count(width, settings.whole(*paths), given, notes),
        "max_position_embeddings": tensors["encoder.positions.weight"].shape[0],
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "mask_token_id": vocabulary - 1,
    }
    if "classifier.out_proj.weight" in tensors:
        fields["num_labels"] = tensors["classifier.out_proj.weight"].shape[0]
    notes["mask_token_id"] = f"{vocabulary - 1} (the last id, where fairseq adds <mask>)"
    stored = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}
    return fields | dropout_rates(settings, {k: f"transformer.{v}" for k, v in stored.items()}, notes)


def _vision(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    width, channels, *patch = tensors["frontend.projection.weight"].shape
    shared, own = "encoder.shared_bias.table" in tensors, "encoder.biases.0.table" in tensors
    table = tensors.get("encoder.shared_bias.table", tensors.get("encoder.biases.0.table"))
    heads = table.shape[1] if table is not None else head_count(width, settings.whole("num_heads"), given, notes)
    grid = patch_grid(table, tensors.get("encoder.positions"), settings, patch) if "image_size" not in given else (1, 1)
    scaled = "encoder.blocks.0.scale1" in tensors
    fields = {
        **block_fields(tensors),
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_channels": channels,
        "patch_size": patch[0] if patch[0] == patch[1] else tuple(patch),
        "image_size": square([grid[0] * patch[0], grid[1] * patch[1]]),
        "layer_norm_eps": 1e-6,
        "use_mask_token": "mask_embedding" in tensors,
        "use_absolute_position_embeddings": "encoder.positions" in tensors,
        "use_relative_position_bias": own,
        "use_shared_relative_position_bias": shared,
        "layer_scale_init_value": (settings.number("layer_scale_init_value", "init_values") or 1e-4) if scaled else 0.0,
        "use_mean_pooling": "norm.weight" not in tensors,
    }
    if "classifier.weight" in tensors:
        fields["num_labels"] = tensors["classifier.weight"].shape[0]
    return fields | dropout_rates(settings, {"drop_path_rate": "drop_path"}, notes)


def _multi(tensors: Tensors, settings: Settings) -> dict[str, Any]:
    """What all modalities of data2vec 2 share."""
    _require_post_norm(settings)
    scale, extra = tensors.get("encoder.alibi_scale"), tensors.get("encoder.extra_tokens")
    fields: dict[str, Any] = {
        "use_alibi": scale is not None,
        "num_extra_tokens": 0 if extra is None else extra.shape[1],
    }
    if scale is not None:
        fields |= {"alibi_scale_per_layer": scale.shape[0] > 1, "alibi_scale_per_head": scale.shape[1] > 1}
    return fields


def _multi_audio(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    fields = _audio(tensors, settings, given, notes)
    for name in ("mask_time_prob", "mask_feature_prob", "hidden_dropout", "layerdrop", "feat_proj_dropout"):
        fields.pop(name, None)
    stored = {
        "hidden_dropout": "encoder_dropout", "layerdrop": "layerdrop", "feat_proj_dropout": "dropout_input",
        "prenet_dropout": "modalities.audio.prenet_dropout",
    }  # fmt: skip
    noise = settings.number("modalities.audio.mask_noise_std")
    fields |= {} if noise is None else {"mask_noise_std": float(noise)}
    return {**fields, **_multi(tensors, settings), **dropout_rates(settings, stored, notes)}


def _multi_text(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    vocabulary, width = tensors["frontend.words.weight"].shape
    positions = tensors.get("frontend.positions.weight")
    rows = (
        2 + int(settings.whole("modalities.text.max_source_positions") or 512) if positions is None else len(positions)
    )
    notes["mask_token_id"] = f"{vocabulary - 1} (the last id, where fairseq adds <mask>)"
    fields = {
        **block_fields(tensors),
        **_multi(tensors, settings),
        "hidden_size": width,
        "vocab_size": vocabulary,
        "num_attention_heads": head_count(width, settings.whole("num_heads"), given, notes),
        "max_position_embeddings": rows,
        "use_position_embeddings": positions is not None,
        "layer_norm_eps": 1e-5,
        "mask_token_id": vocabulary - 1,
    }
    if "classifier.out_proj.weight" in tensors:
        fields["num_labels"] = tensors["classifier.out_proj.weight"].shape[0]
    stored = {
        "hidden_dropout_prob": "encoder_dropout", "attention_probs_dropout_prob": "attention_dropout",
        "layerdrop": "layerdrop", "prenet_dropout": "modalities.text.prenet_dropout",
    }  # fmt: skip
    return fields | dropout_rates(settings, stored, notes)


def _multi_vision(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    inner, channels, *patch = tensors["frontend.projection.weight"].shape
    widening = tensors.get("frontend.widening.weight")
    width = inner if widening is None else widening.shape[0]
    if "encoder.fixed_positions" not in tensors:
        raise CheckpointError("fixed_positions=false: an image model without positions is not supported")
    side = int(tensors["encoder.fixed_positions"].shape[1] ** 0.5)
    if side**2 != tensors["encoder.fixed_positions"].shape[1] and "image_size" not in given:
        raise CheckpointError(f"{side**2} positions fit no square image: give image_size")
    fields = {
        **block_fields(tensors),
        **_multi(tensors, settings),
        "hidden_size": width,
        "num_attention_heads": head_count(width, settings.whole("num_heads"), given, notes),
        "num_channels": channels,
        "patch_embed_dim": None if widening is None else inner,
        "patch_size": square(patch),
        "image_size": square([side * patch[0], side * patch[1]]),
        "layer_norm_eps": 1e-6,
    }
    if "classifier.weight" in tensors:
        fields["num_labels"] = tensors["classifier.weight"].shape[0]
    stored = {
        "hidden_dropout_prob": "encoder_dropout", "attention_probs_dropout_prob": "attention_dropout",
        "drop_path_rate": "end_drop_path_rate", "layerdrop": "layerdrop",
        "prenet_dropout": "modalities.image.prenet_dropout",
    }  # fmt: skip
    return fields | dropout_rates(settings, stored, notes)


def _require_post_norm(settings: Settings) -> None:
    if settings.flag("layer_norm_first"):
        raise CheckpointError("a pre-norm model (layer_norm_first): the published ones are post-norm (P5)")


_Read = Callable[[Tensors, Settings, Given, Notes], dict[str, Any]]
_KINDS: dict[Kind, tuple[_Read, type[PretrainedConfig]]] = {
    ("audio", 1): (_audio, Data2VecAudioConfig),
    ("text", 1): (_text, Data2VecTextConfig),
    ("vision", 1): (_vision, Data2VecVisionConfig),
    ("audio", 2): (_multi_audio, Data2Vec2AudioConfig),
    ("text", 2): (_multi_text, Data2Vec2TextConfig),
    ("vision", 2): (_multi_vision, Data2Vec2VisionConfig),
}
CONFIGS: dict[Kind, type[PretrainedConfig]] = {kind: config for kind, (_, config) in _KINDS.items()}

"""A model's configuration from the shapes of its tensors; from stored settings only what no shape shows (P15)."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.values import Settings
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.vision.config import Data2VecVisionConfig

Tensors = Mapping[str, Tensor]
Notes = dict[str, str]
Given = Mapping[str, Any]
_HEAD_WIDTH = 64  # of every published model
_MAX_LAYERS = 1000
_CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)


def infer(
    modality: str, tensors: Tensors, settings: Settings, overrides: Mapping[str, Any]
) -> tuple[PretrainedConfig, Notes]:
    """The configuration of a checkpoint.

    Args:
        modality: ``audio``, ``text`` or ``vision``.
        tensors: our names.
        settings: what the checkpoint stored beside its tensors.
        overrides: configuration fields that the user gave; they win.

    Returns:
        The configuration, and for each field that no shape decides where its value came from.

    Raises:
        CheckpointError: the tensors make no such model.
        UserError: an override that the configuration refuses.
    """
    notes: Notes = {}
    try:
        fields = _INFER[modality](tensors, settings, overrides, notes)
    except CheckpointError:
        raise
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"no {modality} model: a tensor is missing or has an odd shape ({error})") from error
    for name in overrides:
        notes[name] = f"{overrides[name]} (given)"
    return CONFIGS[modality](**{**fields, **overrides}), notes


def _audio(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    convs = _count(tensors, "frontend.convs.{}.conv.weight")
    kernels = [tensors[f"frontend.convs.{i}.conv.weight"] for i in range(convs)]
    width = tensors["frontend.projection.weight"].shape[0]
    positions = _count(tensors, "encoder.positions.{}.conv.weight")
    if settings.flag("layer_norm_first"):
        raise CheckpointError("a pre-norm model (layer_norm_first): data2vec's are post-norm")
    fields: dict[str, Any] = {
        **_blocks(tensors),
        "hidden_size": width,
        "num_attention_heads": _heads(width, settings.whole("encoder_attention_heads"), given, notes),
        "conv_dim": tuple(kernel.shape[0] for kernel in kernels),
        "conv_kernel": tuple(kernel.shape[2] for kernel in kernels),
        "conv_stride": _strides(settings.text("conv_feature_layers"), convs, given, notes),
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
    return fields | _rates(settings, stored, notes)


def _text(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    vocabulary, width = tensors["frontend.words.weight"].shape
    paths = ("transformer.encoder.attention_heads", "encoder_attention_heads")
    fields = {
        **_blocks(tensors),
        "hidden_size": width,
        "vocab_size": vocabulary,
        "num_attention_heads": _heads(width, settings.whole(*paths), given, notes),
        "max_position_embeddings": tensors["encoder.positions.weight"].shape[0],
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "mask_token_id": vocabulary - 1,
    }
    if "classifier.out_proj.weight" in tensors:
        fields["num_labels"] = tensors["classifier.out_proj.weight"].shape[0]
    notes["mask_token_id"] = f"{vocabulary - 1} (the last id, where fairseq adds <mask>)"
    stored = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}
    return fields | _rates(settings, {k: f"transformer.{v}" for k, v in stored.items()}, notes)


def _vision(tensors: Tensors, settings: Settings, given: Given, notes: Notes) -> dict[str, Any]:
    width, channels, *patch = tensors["frontend.projection.weight"].shape
    shared, own = "encoder.shared_bias.table" in tensors, "encoder.biases.0.table" in tensors
    table = tensors.get("encoder.shared_bias.table", tensors.get("encoder.biases.0.table"))
    heads = table.shape[1] if table is not None else _heads(width, settings.whole("num_heads"), given, notes)
    grid = _grid(table, tensors.get("encoder.positions"), settings, patch) if "image_size" not in given else (1, 1)
    scaled = "encoder.blocks.0.scale1" in tensors
    fields = {
        **_blocks(tensors),
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_channels": channels,
        "patch_size": patch[0] if patch[0] == patch[1] else tuple(patch),
        "image_size": _square([grid[0] * patch[0], grid[1] * patch[1]]),
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
    return fields | _rates(settings, {"drop_path_rate": "drop_path"}, notes)


_INFER = {"audio": _audio, "text": _text, "vision": _vision}
CONFIGS: dict[str, type[PretrainedConfig]] = {
    "audio": Data2VecAudioConfig,
    "text": Data2VecTextConfig,
    "vision": Data2VecVisionConfig,
}


def _count(tensors: Tensors, template: str) -> int:
    """How many numbered tensors of this name there are, from 0 on without gap."""
    pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d{1,4})"))
    numbers = {int(found.group(1)) for name in tensors if (found := pattern.fullmatch(name))}
    if numbers != set(range(len(numbers))) or len(numbers) > _MAX_LAYERS:
        raise CheckpointError(f"{template}: layers {sorted(numbers)[:5]}... are not numbered from 0 without gap")
    return len(numbers)


def _blocks(tensors: Tensors) -> dict[str, int]:
    depth = _count(tensors, "encoder.blocks.{}.mlp.fc1.weight")
    return {"num_hidden_layers": depth, "intermediate_size": tensors["encoder.blocks.0.mlp.fc1.weight"].shape[0]}


def _heads(width: int, stored: int | None, given: Given, notes: Notes) -> int:
    """No shape shows the number of heads."""
    if "num_attention_heads" in given:
        return int(given["num_attention_heads"])
    if stored is not None and width % stored == 0:
        notes["num_attention_heads"] = f"{stored} (stored settings)"
        return stored
    if width % _HEAD_WIDTH:
        raise CheckpointError(f"width {width}: how many attention heads? Give num_attention_heads (--heads)")
    notes["num_attention_heads"] = f"{width // _HEAD_WIDTH} (assumed: {_HEAD_WIDTH} wide, as in every published model)"
    return width // _HEAD_WIDTH


def _rates(settings: Settings, stored: Mapping[str, str], notes: Notes) -> dict[str, float]:
    """Dropout rates matter to training only, and only stored settings know them."""
    rates = {name: settings.number(path, high=1.0) for name, path in stored.items()}
    found = {name: float(rate) for name, rate in rates.items() if rate is not None}
    notes |= {name: f"{rate} (stored settings)" for name, rate in found.items()}
    return found


def _strides(spec: str | None, count: int, given: Given, notes: Notes) -> tuple[int, ...]:
    """Strides from ``"[(512, 10, 5)] + [(512, 3, 2)] * 4 + ..."``, which the original evaluates and we only read."""
    if "conv_stride" in given:
        return tuple(given["conv_stride"])
    layers = _conv_layers(spec) if spec else None
    if layers is not None and len(layers) == count:
        notes["conv_stride"] = "stored settings"
        return tuple(stride for _, _, stride in layers)
    if count != len(_CONV_STRIDE):
        raise CheckpointError(f"{count} convolutions, and no stored settings tell their strides: give conv_stride")
    notes["conv_stride"] = f"{_CONV_STRIDE} (assumed, as in every published model)"
    return _CONV_STRIDE


def _conv_layers(spec: str) -> list[tuple[int, int, int]] | None:
    """Lists of number triples joined by + and multiplied by small numbers; None for anything else."""

    def read(node: ast.expr) -> list[tuple[int, int, int]]:
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return read(left) + read(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if 0 < times < 100:
                return read(left) * times
            case ast.List(elts=items):
                triples = [ast.literal_eval(item) for item in items]
                if all(isinstance(t, tuple) and len(t) == 3 and all(type(n) is int for n in t) for t in triples):
                    return triples
        raise ValueError("not a list of convolutions")

    try:
        return read(ast.parse(spec[:500], mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _grid(table: Tensor | None, positions: Tensor | None, settings: Settings, patch: list[int]) -> tuple[int, int]:
    """(rows, columns) of patches: stored, or the square that the table of offsets or of positions was made for."""
    if table is not None:
        side = int((table.shape[0] - 3) ** 0.5)
        if side % 2 and side * side + 3 == table.shape[0]:
            return (side + 1) // 2, (side + 1) // 2
        raise CheckpointError(f"{table.shape[0]} position biases fit no square image: give image_size")
    if positions is not None and (side := int((positions.shape[1] - 1) ** 0.5)) ** 2 + 1 == positions.shape[1]:
        return side, side
    stored = settings.whole("input_size", "img_size") or 224
    return stored // patch[0], stored // patch[1]


def _square(size: list[int]) -> int | tuple[int, ...]:
    return size[0] if size[0] == size[1] else tuple(size)

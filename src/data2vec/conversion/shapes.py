"""What the shapes of a model's tensors say, and what stored settings add where no shape speaks."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.values import Settings

Tensors = Mapping[str, Tensor]
Notes = dict[str, str]
Given = Mapping[str, Any]
_HEAD_WIDTH = 64  # of every published model
_MAX_LAYERS = 1000
_CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)


def count_layers(tensors: Tensors, template: str) -> int:
    """How many numbered tensors of this name there are, from 0 on without gap."""
    pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d{1,4})"))
    numbers = {int(found.group(1)) for name in tensors if (found := pattern.fullmatch(name))}
    if numbers != set(range(len(numbers))) or len(numbers) > _MAX_LAYERS:
        raise CheckpointError(f"{template}: layers {sorted(numbers)[:5]}... are not numbered from 0 without gap")
    return len(numbers)


def block_fields(tensors: Tensors) -> dict[str, int]:
    """Depth and inner width of the blocks."""
    depth = count_layers(tensors, "encoder.blocks.{}.mlp.fc1.weight")
    return {"num_hidden_layers": depth, "intermediate_size": tensors["encoder.blocks.0.mlp.fc1.weight"].shape[0]}


def head_count(width: int, stored: int | None, given: Given, notes: Notes) -> int:
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


def dropout_rates(settings: Settings, stored: Mapping[str, str], notes: Notes) -> dict[str, float]:
    """Dropout rates matter to training only, and only stored settings know them."""
    rates = {name: settings.number(path, high=1.0) for name, path in stored.items()}
    found = {name: float(rate) for name, rate in rates.items() if rate is not None}
    notes |= {name: f"{rate} (stored settings)" for name, rate in found.items()}
    return found


def conv_strides(spec: str | None, count: int, given: Given, notes: Notes) -> tuple[int, ...]:
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


def patch_grid(table: Tensor | None, positions: Tensor | None, settings: Settings, patch: list[int]) -> tuple[int, int]:
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


def square(size: list[int]) -> int | tuple[int, ...]:
    """One number for a square, else both."""
    return size[0] if size[0] == size[1] else tuple(size)

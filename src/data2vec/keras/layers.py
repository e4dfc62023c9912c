"""The parts of the vision encoder, as in ``models/vision`` and ``nn``, and named alike: names on disk follow from it.

Layers create their variables when they are built in Python, so that a checkpoint can be read into them at once. Images
and feature maps are channels-last inside. Shapes: B batch, P patches, T = P + 1 tokens, H heads, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from data2vec.errors import UserError
from data2vec.keras.backend import keras
from data2vec.models.vision.config import Data2VecVisionConfig

ops = keras.ops
Grid = tuple[int, int]

_gelu_tanh = partial(keras.activations.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": partial(keras.activations.gelu, approximate=False),
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": keras.activations.relu,
    "selu": keras.activations.selu,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
    "tanh": keras.activations.tanh,
    "sigmoid": keras.activations.sigmoid,
    "linear": keras.activations.linear,
}


def activation(name: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function called `name`; a callable (on Keras tensors) is returned as it is."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise UserError(
            f"hidden_act {name!r} is unknown; known are {', '.join(sorted(ACTIVATIONS))}, or pass a callable"
        )
    return ACTIVATIONS[name]


def dense(inputs: int, outputs: int, std: float, *, bias: bool = True) -> Any:
    """A built linear map, N(0, std) with biases 0."""
    layer = keras.layers.Dense(outputs, use_bias=bias, kernel_initializer=keras.initializers.RandomNormal(stddev=std))
    layer.build((None, inputs))
    return layer


def layer_norm(config: Data2VecVisionConfig) -> Any:
    """A built norm over the hidden size."""
    layer = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps)
    layer.build((None, None, config.hidden_size))
    return layer


class VisionFrontend(keras.layers.Layer):
    """Pixels -> patch embeddings: one linear map a patch, stored as the published convolution."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        self.patch = config.patch_shape
        self.projection = keras.layers.Conv2D(
            config.hidden_size,
            self.patch,
            strides=self.patch,
            kernel_initializer=keras.initializers.RandomNormal(stddev=config.initializer_range),
        )
        self.projection.build((None, *config.image_shape, config.num_channels))
        self.built = True

    def call(self, pixels: Any) -> Any:
        """(B, C, height, width) -> (B, P, D), row-major; a rest beyond whole patches is cut off."""
        patches = self.projection(ops.transpose(pixels, (0, 2, 3, 1)))
        return ops.reshape(patches, (-1, patches.shape[1] * patches.shape[2], patches.shape[3]))


class RelativePositionBias(keras.layers.Layer):
    """BEiT's bias table: one number a head for each offset between patches, and three for pairs with the CLS token.

    Args:
        grid: (rows, columns) that the table was made for.
        heads: H.
        compatible: read the table of a grid that is not square as transformers does, with its axes swapped.
    """

    def __init__(self, grid: Grid, heads: int, *, compatible: bool = False) -> None:
        super().__init__()
        self.grid, self.heads = (grid[1], grid[0]) if compatible else grid, heads
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
        self.table = self.add_weight(shape=(rows, heads), initializer="zeros", name="table")
        self.built = True

    def bias(self, grid: Grid) -> Any:
        """The bias (1, H, T, T) on `grid`; other grids than the table's interpolate the offsets."""
        table = ops.convert_to_tensor(self.table)
        if grid != self.grid:
            wanted = (2 * grid[0] - 1, 2 * grid[1] - 1)
            offsets = ops.reshape(table[:-3], (2 * self.grid[0] - 1, 2 * self.grid[1] - 1, self.heads))
            offsets = ops.reshape(resize_map(offsets, wanted, "bilinear"), (-1, self.heads))
            table = ops.concatenate([offsets, table[-3:]], axis=0)
        return ops.transpose(ops.take(table, relative_position_index(*grid), axis=0), (2, 0, 1))[None]


@lru_cache(maxsize=32)
def relative_position_index(rows: int, columns: int) -> Any:
    """Table row for every pair of tokens, (T, T) int32, CLS first (BEiT, `modeling_finetune.py`)."""
    y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    offset_y, offset_x = y[:, None] - y + rows - 1, x[:, None] - x + columns - 1
    count = (2 * rows - 1) * (2 * columns - 1)
    index = np.empty((rows * columns + 1, rows * columns + 1), np.int32)
    index[1:, 1:] = offset_y * (2 * columns - 1) + offset_x
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index


def resize_map(values: Any, size: Grid, kernel: str) -> Any:
    """A map (rows, columns, D) resampled to `size`, as torch's ``interpolate`` without aligned corners does."""
    high, wide = (resize_matrix(old, new, kernel) for old, new in zip(values.shape[:2], size, strict=True))
    width = values.shape[2]
    rows = ops.matmul(ops.cast(high, values.dtype), ops.reshape(values, (values.shape[0], -1)))
    columns = ops.transpose(ops.reshape(rows, (size[0], values.shape[1], width)), (1, 0, 2))
    resized = ops.matmul(ops.cast(wide, values.dtype), ops.reshape(columns, (values.shape[1], -1)))
    return ops.transpose(ops.reshape(resized, (size[1], size[0], width)), (1, 0, 2))


@lru_cache(maxsize=64)
def resize_matrix(old: int, new: int, kernel: str) -> Any:
    """Weights (new, old) float32 of resampling one axis; `kernel` is ``bilinear`` or ``bicubic`` (a = -0.75)."""
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    if kernel == "bilinear":
        centre = np.maximum(centre, 0.0)
    first = np.floor(centre).astype(int)
    steps = (0, 1) if kernel == "bilinear" else (-1, 0, 1, 2)
    matrix = np.zeros((new, old))
    for step in steps:
        distance = np.abs(centre - first - step)
        weight = 1 - distance if kernel == "bilinear" else _cubic(distance)
        np.add.at(matrix, (np.arange(new), np.clip(first + step, 0, old - 1)), weight)
    return matrix.astype(np.float32)


def _cubic(t: Any) -> Any:
    """Keys' cubic convolution kernel with a = -0.75, at distances 0 to 2."""
    return np.where(t <= 1, (1.25 * t - 2.25) * t * t + 1, ((-0.75 * t + 3.75) * t - 6) * t + 3)


class DropPath(keras.layers.Layer):
    """Skips a residual branch for a random share of the samples; the kept ones are scaled so that the mean stays."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.seeds = keras.random.SeedGenerator() if rate > 0 else None
        self.built = True

    def call(self, branch: Any, training: bool = False) -> Any:
        """(B, T, D) -> (B, T, D)."""
        if self.seeds is None or not training:
            return branch
        shape = (ops.shape(branch)[0], *[1] * (len(branch.shape) - 1))
        keep = keras.random.uniform(shape, seed=self.seeds, dtype="float32") >= self.rate
        return branch * ops.cast(keep, branch.dtype) / max(1.0 - self.rate, 1e-6)


class Attention(keras.layers.Layer):
    """Multi-head self-attention with separate projections; BEiT's key projection has no bias."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.q_proj = dense(width, width, std)
        self.k_proj = dense(width, width, std, bias=False)
        self.v_proj = dense(width, width, std)
        self.out_proj = dense(width, width, std)
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob)
        self.built = True

    def call(self, x: Any, bias: Any = None, head_mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Attend from x (B, T, D) to itself.

        Args:
            x: (B, T, D).
            bias: (1, H, T, T), added to the scores.
            head_mask: (H, 1, 1), multiplied into the weights.
            training: drop attention weights.

        Returns:
            (B, T, D) and the weights (B, H, T, T).
        """
        query, key, value = self._split(self.q_proj(x)), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) / math.sqrt(query.shape[-1])
        if bias is not None:
            scores = scores + bias
        weights = self.dropout(ops.softmax(scores, axis=-1), training=training)
        if head_mask is not None:
            weights = weights * head_mask
        out = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.out_proj(ops.reshape(out, (-1, *x.shape[1:]))), weights

    def _split(self, x: Any) -> Any:
        split = ops.reshape(x, (-1, x.shape[1], self.heads, x.shape[2] // self.heads))
        return ops.transpose(split, (0, 2, 1, 3))


class FeedForward(keras.layers.Layer):
    """Two linear maps with an activation between."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        self.fc1 = dense(config.hidden_size, config.intermediate_size, config.initializer_range)
        self.fc2 = dense(config.intermediate_size, config.hidden_size, config.initializer_range)
        self.activation = activation(config.hidden_act)
        self.built = True

    def call(self, x: Any) -> Any:
        """(B, T, D) -> (B, T, D)."""
        return self.fc2(self.activation(self.fc1(x)))


class Block(keras.layers.Layer):
    """Norm, attention and norm, feed-forward, each with dropout, optional layer scale and stochastic depth."""

    def __init__(self, config: Data2VecVisionConfig, drop_path: float) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm1 = layer_norm(config)
        self.mlp = FeedForward(config)
        self.norm2 = layer_norm(config)
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)
        self.scale1 = self._scale(config, "scale1")
        self.scale2 = self._scale(config, "scale2")
        self.built = True

    def _scale(self, config: Data2VecVisionConfig, name: str) -> Any:
        value = config.layer_scale_init_value
        if value <= 0:
            return None
        return self.add_weight(shape=(config.hidden_size,), initializer=keras.initializers.Constant(value), name=name)

    def call(self, x: Any, bias: Any = None, head_mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        """(B, T, D) -> (B, T, D) and the attention weights (B, H, T, T)."""
        attended, weights = self.attention(self.norm1(x), bias=bias, head_mask=head_mask, training=training)
        x = x + self._branch(attended, self.scale1, training)
        return x + self._branch(self.mlp(self.norm2(x)), self.scale2, training), weights

    def _branch(self, branch: Any, scale: Any, training: bool) -> Any:
        branch = branch if scale is None else branch * scale
        return self.drop_path(self.dropout(branch, training=training), training=training)


class VisionEncoder(keras.layers.Layer):
    """CLS token, optional absolute positions, relative position bias, pre-norm blocks."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        self.grid = config.grid
        patches, side = self.grid[0] * self.grid[1], math.isqrt(self.grid[0] * self.grid[1])
        is_square = config.is_compatible and side * side == patches  # transformers takes any grid for a square one
        self.position_grid = (side, side) if is_square else self.grid
        depth, width = config.num_hidden_layers, config.hidden_size
        self.cls_token = self.add_weight(shape=(1, 1, width), initializer="zeros", name="cls_token")
        self.positions = None
        if config.use_absolute_position_embeddings:
            self.positions = self.add_weight(shape=(1, patches + 1, width), initializer="zeros", name="positions")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob)
        shared, own = config.use_shared_relative_position_bias, config.use_relative_position_bias
        table = partial(RelativePositionBias, self.grid, config.num_attention_heads, compatible=config.is_compatible)
        self.shared_bias = table() if shared else None
        self.biases = [table() for _ in range(depth if own else 0)]
        self.blocks = [Block(config, rate) for rate in np.linspace(0.0, config.drop_path_rate, depth).tolist()]
        self.built = True

    def call(self, patches: Any, grid: Grid, head_mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Run all blocks.

        Args:
            patches: (B, P, D).
            grid: (rows, columns) with ``rows * columns == P``.
            head_mask: (layers, H), or None.
            training: dropout and stochastic depth.

        Returns:
            Hidden states, depth + 1 of (B, T, D), the first block's input first; attention weights, depth of
            (B, H, T, T).
        """
        states, weights = [self._input(patches, grid, training)], []
        for index, (block, bias) in enumerate(zip(self.blocks, self._bias(grid), strict=True)):
            heads = None if head_mask is None else head_mask[index][:, None, None]
            state, seen = block(states[-1], bias=bias, head_mask=heads, training=training)
            states.append(state)
            weights.append(seen)
        return tuple(states), tuple(weights)

    def _input(self, patches: Any, grid: Grid, training: bool) -> Any:
        cls_token = ops.cast(ops.convert_to_tensor(self.cls_token), patches.dtype)
        first = ops.broadcast_to(cls_token, (ops.shape(patches)[0], 1, patches.shape[2]))
        x = ops.concatenate([first, patches], axis=1)
        if self.positions is not None:
            x = x + self._resized_positions(grid)
        return self.dropout(x, training=training)

    def _resized_positions(self, grid: Grid) -> Any:
        """The absolute positions (1, T, D), interpolated (bicubic) to `grid`."""
        positions = ops.convert_to_tensor(self.positions)
        if grid == self.position_grid:
            return positions
        width = positions.shape[2]
        table = resize_map(ops.reshape(positions[0, 1:], (*self.position_grid, width)), grid, "bicubic")
        return ops.concatenate([positions[:, :1], ops.reshape(table, (1, -1, width))], axis=1)

    def _bias(self, grid: Grid) -> list[Any]:
        """What is added to each block's scores, (1, H, T, T) or None; where both kinds of table are on, their sum."""
        shared = None if self.shared_bias is None else self.shared_bias.bias(grid)
        if not self.biases:
            return [shared] * len(self.blocks)
        return [table.bias(grid) if shared is None else table.bias(grid) + shared for table in self.biases]

"""UPerNet on a plain ViT, as ``models/vision/segmentation.py`` and named alike; feature maps are channels-last.

Shapes: B batch, D width, h and w the patch grid, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from data2vec.keras.backend import keras
from data2vec.keras.losses import mean_cross_entropy
from data2vec.models.vision.config import Data2VecVisionConfig

ops = keras.ops


class BatchNorm(keras.layers.Layer):
    """Batch norm over all but the last axis with PyTorch's running variance, the unbiased one (Keras keeps the biased).

    A single value a channel (one image, pooled to 1x1) has no variance: it gets the running one. Always in fp32.
    """

    epsilon, momentum = 1e-5, 0.1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = self._vector(width, "ones", "weight", trainable=True)
        self.bias = self._vector(width, "zeros", "bias", trainable=True)
        self.running_mean = self._vector(width, "zeros", "running_mean", trainable=False)
        self.running_var = self._vector(width, "ones", "running_var", trainable=False)
        self.num_batches_tracked = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="num_batches_tracked"
        )
        self.built = True

    def _vector(self, width: int, initializer: str, name: str, *, trainable: bool) -> Any:
        return self.add_weight(
            shape=(width,), initializer=initializer, trainable=trainable, autocast=False, name=name, dtype="float32"
        )

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, h, w, D) -> (B, h, w, D); in training by the batch's statistics, which also move the running ones."""
        values = ops.cast(x, "float32")
        mean, variance = (ops.convert_to_tensor(value) for value in (self.running_mean, self.running_var))
        if training:
            mean, variance = self._batch_statistics(values, mean, variance)
        scale = self.weight * ops.rsqrt(variance + self.epsilon)
        return ops.cast(values * scale + (self.bias - mean * scale), x.dtype)

    def _batch_statistics(self, values: Any, old_mean: Any, old_variance: Any) -> tuple[Any, Any]:
        """Mean and variance of the batch, where it has them; the running ones follow."""
        count = ops.cast(ops.shape(values)[0] * values.shape[1] * values.shape[2], "float32")
        mean, variance = ops.moments(values, axes=(0, 1, 2))
        has_variance = count > 1.0
        unbiased = variance * count / ops.maximum(count - 1.0, 1.0)
        step = ops.where(has_variance, self.momentum, 0.0)
        self.running_mean.assign(old_mean + step * (mean - old_mean))
        self.running_var.assign(old_variance + step * (unbiased - old_variance))
        self.num_batches_tracked.assign_add(ops.cast(has_variance, "int64"))
        return ops.where(has_variance, mean, old_mean), ops.where(has_variance, variance, old_variance)


def conv(source: int, width: int, kernel: int, std: float, *, bias: bool = True) -> Any:
    """A built convolution of odd kernel that keeps the size, N(0, std)."""
    initializer = keras.initializers.RandomNormal(stddev=std)
    layer = keras.layers.Conv2D(width, kernel, padding="same", use_bias=bias, kernel_initializer=initializer)
    layer.build((None, None, None, source))
    return layer


def double(width: int, std: float) -> Any:
    """A built transposed convolution to twice the size."""
    initializer = keras.initializers.RandomNormal(stddev=std)
    layer = keras.layers.Conv2DTranspose(width, 2, strides=2, kernel_initializer=initializer)
    layer.build((None, None, None, width))
    return layer


class ConvLayer(keras.layers.Layer):
    """Convolution -> batch norm -> ReLU."""

    def __init__(self, source: int, width: int, kernel: int, std: float) -> None:
        super().__init__()
        self.convolution = conv(source, width, kernel, std, bias=False)
        self.normalization = BatchNorm(width)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, h, w, source) -> (B, h, w, width)."""
        return ops.relu(self.normalization(self.convolution(x), training=training))


class Pyramid(keras.layers.Layer):
    """Four maps of one resolution -> four maps of 4, 2, 1 and 1/2 times the patch grid."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        gelu = keras.layers.Activation("gelu")  # the exact one
        self.four = [double(width, std), BatchNorm(width), gelu, double(width, std)]  # place is name on disk
        self.two = [double(width, std)]
        self.built = True

    def call(self, maps: Sequence[Any], training: bool = False) -> list[Any]:
        """(B, h, w, D) each -> (B, 4h, 4w, D), (B, 2h, 2w, D), (B, h, w, D), (B, h // 2, w // 2, D)."""
        first, norm, gelu, second = self.four
        finest = second(gelu(norm(first(maps[0]), training=training)))
        return [finest, self.two[0](maps[1]), maps[2], halve(maps[3])]


def halve(x: Any) -> Any:
    """Maximum of 2x2; an axis of one patch stays."""
    window = (min(2, x.shape[1]), min(2, x.shape[2]))
    return ops.max_pool(x, window, strides=window, padding="valid")


class PoolBranch(keras.layers.Layer):
    """The map averaged to `size` x `size`, convolved, and brought back to its own size."""

    def __init__(self, size: int, width: int, std: float) -> None:
        super().__init__()
        self.size = size
        self.conv = ConvLayer(width, width, 1, std)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, h, w, D) -> (B, h, w, D)."""
        return resize(self.conv(adaptive_average(x, self.size), training=training), x.shape[1:3])


def adaptive_average(x: Any, size: int) -> Any:
    """(B, h, w, D) -> (B, size, size, D): torch's adaptive average pooling, as one constant matrix.

    One product of rank three: what LiteRT runs with any batch size.
    """
    matrix = ops.cast(pool_matrix(x.shape[1], x.shape[2], size), x.dtype)
    pooled = ops.matmul(matrix, ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])))
    return ops.reshape(pooled, (-1, size, size, x.shape[3]))


@lru_cache(maxsize=64)
def pool_matrix(rows: int, columns: int, size: int) -> Any:
    """Weights (size * size, rows * columns) float32.

    Bin i of an axis of n cells averages the cells ``floor(i n / size)`` up to ``ceil((i + 1) n / size)``.
    """
    high, wide = np.zeros((size, rows)), np.zeros((size, columns))
    for axis in (high, wide):
        cells = axis.shape[1]
        for i in range(size):
            start, end = i * cells // size, -(-(i + 1) * cells // size)
            axis[i, start:end] = 1 / (end - start)
    return np.kron(high, wide).astype(np.float32)


class SegmentationDecoder(keras.layers.Layer):
    """UPerNet: pooling at several scales on the coarsest map, a feature pyramid down to the finest, classes."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        width, std, scales = config.hidden_size, config.initializer_range, config.pool_scales
        self.pools = [PoolBranch(scale, width, std) for scale in scales]
        self.bottleneck = ConvLayer((1 + len(scales)) * width, width, 3, std)
        self.laterals = [ConvLayer(width, width, 1, std) for _ in range(3)]
        self.smoothers = [ConvLayer(width, width, 3, std) for _ in range(3)]
        self.fusion = ConvLayer(4 * width, width, 3, std)
        self.classifier = conv(width, config.num_labels, 1, std)
        self.built = True

    def call(self, maps: Sequence[Any], training: bool = False) -> Any:
        """Maps, finest first -> (B, 4h, 4w, C)."""
        coarse = maps[-1]
        levels = [lateral(x, training=training) for lateral, x in zip(self.laterals, maps, strict=False)]
        pooled = [coarse, *(pool(coarse, training=training) for pool in self.pools)]
        levels.append(self.bottleneck(ops.concatenate(pooled, axis=-1), training=training))
        for index in range(len(levels) - 1, 0, -1):
            levels[index - 1] = levels[index - 1] + resize(levels[index], levels[index - 1].shape[1:3])
        smooth = [smoother(x, training=training) for smoother, x in zip(self.smoothers, levels, strict=False)]
        finest = levels[0].shape[1:3]
        fused = ops.concatenate([resize(x, finest) for x in (*smooth, levels[-1])], axis=-1)
        return self.classifier(self.fusion(fused, training=training))


class AuxiliaryDecoder(keras.layers.Layer):
    """Plain convolutions on the map of the patch grid: a second loss while training."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        width, channels, depth = config.hidden_size, config.auxiliary_channels, config.auxiliary_num_convs
        std = config.initializer_range
        self.convs = [ConvLayer(channels if index else width, channels, 3, std) for index in range(depth)]
        reached = channels if depth else width
        self.conv_cat = ConvLayer(width + reached, channels, 3, std) if config.auxiliary_concat_input else None
        self.classifier = conv(channels if self.conv_cat is not None else reached, config.num_labels, 1, std)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, h, w, D) -> (B, h, w, C)."""
        own = x
        for layer in self.convs:
            own = layer(own, training=training)
        if self.conv_cat is not None:
            own = self.conv_cat(ops.concatenate([x, own], axis=-1), training=training)
        return self.classifier(own)


def resize(x: Any, size: Sequence[int]) -> Any:
    """(B, ., ., C) to (B, *size, C), bilinear."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    resized = ops.image.resize(x, tuple(size), interpolation="bilinear", antialias=False, data_format="channels_last")
    return ops.cast(resized, x.dtype)


def segmentation_loss(logits: Any, labels: Any, covered: tuple[int, int], ignored: int) -> Any:
    """Mean cross-entropy of the scores brought to the labels' size, a scalar.

    Args:
        logits: (B, ., ., C), scores of an area of `covered` pixels.
        labels: (B, height, width) classes of the image, which may end before the area does.
        covered: (height, width) of the area, pixels of the image.
        ignored: label that does not count.
    """
    height, width = labels.shape[1:3]
    logits = resize(ops.cast(logits, "float32"), (max(height, covered[0]), max(width, covered[1])))
    return mean_cross_entropy(logits[:, :height, :width], labels, ignored)

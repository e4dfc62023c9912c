"""The parts that replace a torch function, against it and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_cases import as_array, worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

from data2vec.keras.backend import keras, tf
from data2vec.keras.layers import ACTIVATIONS, RelativePositionBias, relative_position_index, resize_map
from data2vec.keras.segmentation import BatchNorm, adaptive_average, halve, pool_matrix, resize
from data2vec.nn import activations, positions

sides = st.integers(1, 9)
few = settings(max_examples=25)


@few
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.sampled_from(["bilinear", "bicubic"]))
def test_maps_are_resized_as_in_torch(old: tuple[int, int], new: tuple[int, int], kernel: str) -> None:
    values = np.random.default_rng(0).standard_normal((*old, 3)).astype(np.float32)
    wanted = F.interpolate(torch.as_tensor(values).permute(2, 0, 1)[None], size=new, mode=kernel, align_corners=False)
    assert worst(resize_map(tf.constant(values), new, kernel), wanted[0].permute(1, 2, 0)) < 1e-5
    if kernel == "bilinear":
        assert worst(resize(tf.constant(values)[None], new)[0], wanted[0].permute(1, 2, 0)) < 1e-5


@few
@given(sides, sides, st.integers(1, 6))
def test_pools_average_as_in_torch(rows: int, columns: int, size: int) -> None:
    values = np.random.default_rng(0).standard_normal((2, rows, columns, 3)).astype(np.float32)
    channels_first = torch.as_tensor(values).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(channels_first, size).permute(0, 2, 3, 1)
    assert worst(adaptive_average(tf.constant(values), size), pooled) < 1e-6
    window = (min(2, rows), min(2, columns))
    assert worst(halve(tf.constant(values)), F.max_pool2d(channels_first, window).permute(0, 2, 3, 1)) == 0.0


def test_pool_matrix_is_the_plain_average() -> None:
    rows, columns, size = 5, 4, 3
    image = np.arange(20.0).reshape(rows, columns)
    for i in range(size):
        for j in range(size):
            top, bottom = i * rows // size, int(np.ceil((i + 1) * rows / size))
            left, right = j * columns // size, int(np.ceil((j + 1) * columns / size))
            found = (pool_matrix(rows, columns, size) @ image.ravel())[i * size + j]
            assert found == pytest.approx(image[top:bottom, left:right].mean(), rel=1e-6)


@few
@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_relative_bias(made_for: tuple[int, int], grid: tuple[int, int]) -> None:
    assert np.array_equal(relative_position_index(*grid), positions.relative_position_index(*grid))
    ours, theirs = RelativePositionBias(made_for, 2), positions.RelativePositionBias(made_for, 2)
    table = np.random.default_rng(0).standard_normal(ours.table.shape).astype(np.float32)
    ours.table.assign(table)
    theirs.table.data = torch.as_tensor(table)
    assert worst(ours.bias(grid), theirs(grid)) < 1e-5


@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_batch_norm_keeps_torchs_statistics(batch: int, rows: int, columns: int) -> None:
    """Two steps, then evaluation; one value a channel has no variance, and leaves the running one alone."""
    ours, theirs = BatchNorm(4), torch.nn.BatchNorm2d(4)
    rng = np.random.default_rng(0)
    for _ in range(2):
        x = rng.normal(1.0, 2.0, (batch, rows, columns, 4)).astype(np.float32)
        if batch * rows * columns > 1:
            wanted = theirs(torch.as_tensor(x).permute(0, 3, 1, 2))
        else:
            wanted = theirs.eval()(torch.as_tensor(x).permute(0, 3, 1, 2))
        assert worst(ours(x, training=True), wanted.permute(0, 2, 3, 1)) < 2e-5
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert worst(getattr(ours, name).numpy(), getattr(theirs, name)) < 1e-6, name
    wanted = theirs.eval()(torch.as_tensor(x).permute(0, 3, 1, 2))
    assert worst(ours(x), wanted.permute(0, 2, 3, 1)) < 2e-5


def test_activations_are_those_of_torch() -> None:
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    assert set(ACTIVATIONS) == set(activations.ACTIVATIONS)
    for name, function in ACTIVATIONS.items():
        assert worst(function(tf.constant(x)), as_array(activations.ACTIVATIONS[name](torch.as_tensor(x)))) < 1e-6, name


def test_activation_layer_of_the_pyramid_is_the_exact_gelu() -> None:
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    assert worst(keras.layers.Activation("gelu")(x), F.gelu(torch.as_tensor(x))) < 1e-6

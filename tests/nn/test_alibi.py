"""ALiBi: slopes, distances, learned scales, extra axes."""

from __future__ import annotations

import pytest
import torch

from data2vec.nn.alibi import alibi, alibi_slopes, distances
from data2vec.nn.positions import sincos_positions


def test_slopes_of_a_power_of_two() -> None:
    assert alibi_slopes(8).tolist() == pytest.approx([2.0**-i for i in range(1, 9)])


def test_slopes_of_twelve_heads() -> None:
    """Those of the published models: 1/2 ... 1/256, then 2^-.5, 2^-1.5, 2^-2.5, 2^-3.5."""
    expected = [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert alibi_slopes(12).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("heads", range(1, 20))
def test_as_many_slopes_as_heads(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert slopes.shape == (heads,)
    assert bool(((slopes > 0) & (slopes <= 1)).all())


def test_bias_is_slope_times_distance() -> None:
    index = torch.tensor([[0, 3, 4], [1, 2, 9]])
    scale = torch.tensor([1.0, 2.0])[:, None, None]
    bias = alibi(index, scale, heads=2)
    for row in range(2):
        for i in range(3):
            for j in range(3):
                far = abs(int(index[row, i]) - int(index[row, j]))
                assert bias[row, :, i, j].tolist() == pytest.approx([-far * 2**-4, -2 * far * 2**-8])


def test_negative_scales_count_as_zero() -> None:
    assert not bool(alibi(torch.arange(4)[None], -torch.ones(2, 1, 1), heads=2).any())


def test_manhattan_distance_on_a_grid() -> None:
    far = distances(torch.arange(6)[None], columns=3)[0, 0]
    assert far[0].tolist() == [0, 1, 2, 1, 2, 3]
    assert torch.equal(far, far.t())


def test_fixed_positions_follow_the_formula() -> None:
    table = sincos_positions(2, 3, 8)
    assert table.shape == (6, 8)
    row, column = 1, 2
    rates = torch.tensor([1.0, 0.01])
    expected = [(column * rates).sin(), (column * rates).cos(), (row * rates).sin(), (row * rates).cos()]
    torch.testing.assert_close(table[row * 3 + column], torch.cat(expected))

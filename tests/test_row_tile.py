"""Tiles whose rows of taps stay in registers, against the textbook."""

import numpy as np
import pytest

from fastconv import functional as F
from fastconv.functional import conv_tiles
from fastconv.kernels import row_tile
from fastconv.shapes import conv2d

TAPS = range(2, max(10, row_tile.MOST_TAPS + 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("taps", TAPS)
def test_rows_of_every_length(rng, taps, dtype):
    """Every height of a tile, with the vectors of output channels that a tile has: two, one, a part of one, and groups of them."""
    lanes = row_tile.VECTOR_BYTES // np.dtype(dtype).itemsize
    for across in range(1, 29):
        channels, out = 1 + across % 5, (lanes, 2 * lanes, 3, 3 * lanes + 1, 4 * lanes)[across % 5]
        groups = 2 if across % 3 == 0 else 1
        x = rng.standard_normal((2, groups * channels, 4, across + taps - 2)).astype(dtype)
        weight = rng.standard_normal((groups * out, channels, 3, taps)).astype(dtype)
        options = {"padding": ((1, 0), (0, 1)), "groups": groups}
        for bias in (None, rng.standard_normal(groups * out).astype(dtype)):
            y = F.conv2d(x, weight, bias, algorithm="direct", **options)
            expected = F.conv2d(*(None if a is None else a.astype(np.float64) for a in (x, weight, bias)), algorithm="loops", **options)
            np.testing.assert_allclose(y, expected, rtol=0, atol=np.finfo(dtype).eps * 64 * abs(expected).max())


@pytest.mark.skipif(row_tile.MOST_TAPS == 0, reason="this processor takes simd.tile for all")
def test_which_convolutions_take_them():
    def rows(width, taps, stride=1, dilation=1):
        g = conv2d((1, 8, 20, width), (40, 8, 3, taps), (1, stride), 0, (1, dilation), 1)
        return conv_tiles.forward_plan(g, 4).row_taps

    most, least = row_tile.MOST_ROWS[3], row_tile.LEAST_ROWS[3]
    assert rows(most + 2, 3) == rows(least + 2, 3) == (3,)
    assert rows(least + 1, 3) == rows(40, 1) == rows(40, row_tile.MOST_TAPS + 1) == ()
    assert rows(40, 3, stride=2) == rows(40, 3, dilation=2) == ()
    (plan,) = conv_tiles.input_plans(conv2d((1, 8, 40, 40), (40, 8, 3, 5), 2, 0, 1, 1), 4)
    assert set(plan.row_taps) == {2, 3}  # the phases of a stride


@pytest.mark.parametrize("taps", [2, 3, 5])
def test_maxima_are_those_of_the_convolution(rng, taps):
    """Bit by bit, also where a last odd column of outputs is left out."""
    for across in (*range(2, 20), 65282):  # the last are cut into jobs of columns
        x = rng.standard_normal((3 if across < 20 else 1, 6, 4, across + taps - 1)).astype(np.float32)
        weight, bias = rng.standard_normal((20, 6, 3, taps)).astype(np.float32), rng.standard_normal(20).astype(np.float32)
        y, _, _ = F.conv.conv2d_relu_max_pool2d(x, weight, bias, 1, 0, 1, 1, "direct")
        expected = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, algorithm="direct")), 2)
        np.testing.assert_array_equal(y, expected)

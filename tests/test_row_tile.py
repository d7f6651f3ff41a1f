"""Tiles whose rows of taps stay in registers, against the textbook."""

import numpy as np
import pytest

from fastconv import functional as F
from fastconv.functional import conv_rows_weight, conv_tiles
from fastconv.kernels import row_tile, row_tile_weight
from fastconv.shapes import conv2d

TAPS = range(2, max(10, row_tile.MOST_TAPS + 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps", TAPS)
def test_rows_of_every_length(rng, taps, stride, dtype):
    """Every height of a tile, with the vectors of output channels that a tile has: two, one, a part of one, and groups of them."""
    lanes = row_tile.VECTOR_BYTES // np.dtype(dtype).itemsize
    for across in range(1, 29):
        channels, out = 1 + across % 5, (lanes, 2 * lanes, 3, 3 * lanes + 1, 4 * lanes)[across % 5]
        groups = 2 if across % 3 == 0 else 1
        x = rng.standard_normal((2, groups * channels, 4, (across - 1) * stride + taps - 1)).astype(dtype)
        weight = rng.standard_normal((groups * out, channels, 3, taps)).astype(dtype)
        options = {"padding": ((1, 0), (0, 1)), "groups": groups, "stride": (1, stride)}
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
    assert rows(40, 3, stride=2) == rows(2 * least + 1, 3, stride=2) == (3,)
    assert rows(2 * least, 3, stride=2) == rows(40, 2, stride=2) == rows(40, 3, stride=3) == rows(40, 3, dilation=2) == ()
    (plan,) = conv_tiles.input_plans(conv2d((1, 8, 40, 40), (40, 8, 3, 5), 2, 0, 1, 1), 4)
    assert set(plan.row_taps) == {2, 3}  # the phases of a stride


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps", [2, 3, 5])
def test_maxima_are_those_of_the_convolution(rng, taps, stride):
    """Bit by bit, also where a last odd column of outputs is left out."""
    for across in (*range(2, 20), 65282):  # the last are cut into jobs of columns
        x = rng.standard_normal((3 if across < 20 else 1, 6, 4 * stride, (across - 1) * stride + taps)).astype(np.float32)
        weight, bias = rng.standard_normal((20, 6, 3, taps)).astype(np.float32), rng.standard_normal(20).astype(np.float32)
        y, _, _ = F.conv.conv2d_relu_max_pool2d(x, weight, bias, stride, 0, 1, 1, "direct")
        expected = F.max_pool2d(F.relu(F.conv2d(x, weight, bias, stride, algorithm="direct")), 2)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("taps", TAPS)
def test_weight_gradients_of_every_length(rng, taps, stride, dilation, dtype):
    """Parts of many numbers of channels, two vectors of output channels, one, and a part of one, and rows that end at every turn."""
    lanes = row_tile.VECTOR_BYTES // np.dtype(dtype).itemsize
    for across in range(1, 2 * taps + 9):
        channels, out = lanes + across % (lanes + 1), (lanes, 2 * lanes, 3, 3 * lanes + 1, 2 * lanes - 1)[across % 5]
        groups, rows = 2 if across % 3 == 0 else 1, 1 + across % 3
        width = (across - 1) * stride + (taps - 1) * dilation + 1
        left = min(2, width - 1)
        x = rng.standard_normal((2, groups * channels, rows + 4, width - left)).astype(dtype)
        weight = np.zeros((groups * out, channels, rows, taps), dtype)
        options = {"padding": ((1, 0), (left, 0)), "groups": groups, "stride": (1, stride), "dilation": (1, dilation)}
        grad_output = rng.standard_normal((2, groups * out, 6, across)).astype(dtype)
        options["output_mask"] = (False, True, False)
        gradient = F.conv2d_backward(grad_output, x, weight, algorithm="direct", **options)[1]
        exact = (a.astype(np.float64) for a in (grad_output, x, weight))
        expected = F.conv2d_backward(*exact, algorithm="loops", **options)[1]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=np.finfo(dtype).eps * 64 * abs(expected).max())


@pytest.mark.skipif(row_tile.MOST_TAPS == 0, reason="this processor takes simd.tile for all")
def test_which_weight_gradients_take_them():
    def fits(width, taps, stride=1, dilation=1, channels=32, rows=1):
        g = conv2d((1, channels, 20, width), (40, channels, 3, taps), (1, stride), 0, (rows, dilation), 1)
        return conv_rows_weight.fits_weight(g, 4)

    assert fits(40, 3) and fits(4, 3) and fits(40, 3, 2) and fits(40, 3, 1, 2) and fits(40, row_tile.MOST_TAPS)
    assert not any([fits(3, 3), fits(40, 1), fits(40, 2, 2), fits(40, row_tile.MOST_TAPS + 1), fits(40, 3, 3), fits(40, 3, 2, 2)])
    assert fits(40, 3, rows=3) and not fits(40, 3, rows=4)
    assert fits(40, 3, channels=16) and not fits(40, 3, channels=15) and not fits(40, 3, 2, channels=16)
    assert [row_tile_weight.most_channels.py_func(taps, 1, 2) for taps in (2, 3, 5, 7)] == [6, 4, 2, 1]


@pytest.mark.parametrize("shape", [(1, 16, 300, 300), (2, 512, 40, 600), (64, 64, 801, 6), (256, 32, 65, 10)])
@pytest.mark.parametrize("rows", [2, 9])
def test_what_weight_gradients_copy_is_bounded(shape, rows):
    g = conv2d(shape, (64, shape[1], rows, 3), 1, (rows // 2, 1), 1, 1)
    packed, _, (images, height, parts, _, own, _) = conv_rows_weight._cut(g, 4)
    row = (-(-g.OW // parts) + 2) * own * packed[5] * 4
    assert images * (height + rows - 1) * row <= conv_rows_weight.UNIT_BYTES or (images, height) == (1, 1)

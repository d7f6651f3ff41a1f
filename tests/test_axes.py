"""Exchanging the axes of memory."""

import numpy as np
import pytest

from fastconv import functional as F
from fastconv.functional.arrays import channels_first, channels_last
from fastconv.kernels import axes

SIDES = (1, 2, 3, 7, 8, 9, 13, 16, 27, 35, axes.RUN - 1, axes.RUN, 2 * axes.RUN + 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["serial", "parallel"])
@pytest.mark.parametrize("A", SIDES)
def test_swap(A, form, dtype):
    for B in SIDES:
        for N in (0, 1, 3):
            x = np.random.default_rng(0).standard_normal((N, A, B)).astype(dtype)
            memory = np.full(x.size + 64, np.nan, dtype)
            y = memory[: x.size].reshape(N, B, A)
            getattr(axes.swap, form)(x, y)
            np.testing.assert_array_equal(y, x.transpose(0, 2, 1))
            assert np.isnan(memory[x.size :]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("count", [50, 1 << 15, 3 << 15])
def test_both_orders_of_images(channels, count):
    side = int((count / channels / 2) ** 0.5) + 1
    x = np.random.default_rng(0).standard_normal((2, channels, side, side)).astype(np.float32)
    last = channels_last("x", x)
    assert last.flags.c_contiguous
    np.testing.assert_array_equal(last, x.transpose(0, 2, 3, 1))
    first = channels_first(last.transpose(0, 3, 1, 2))
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, x)


def test_channels_of_any_strides_convolve_the_same():
    x, w = np.random.default_rng(0).standard_normal((4, 3, 60, 60)), np.ones((2, 3, 3, 3))
    memory = np.zeros((4, 60, 3, 60, 2))
    strided = memory[..., 0].transpose(0, 2, 1, 3)
    strided[...] = x
    np.testing.assert_array_equal(F.conv2d(strided, w), F.conv2d(x, w))

"""Pooling over the tables of shapes, against the reference: selections are equal to the bit, means to a rounding."""

import numpy as np
import pytest
from cases import ADAPTIVE, AVG_POOL, MAX_POOL, Pool, ids
from checks import assert_same_bits, assert_within, distinct, small_integers
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import functional as F
from fastconv import reference

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
each_max = pytest.mark.parametrize("case", MAX_POOL, ids=ids(MAX_POOL))
each_average = pytest.mark.parametrize("case", AVG_POOL, ids=ids(AVG_POOL))
each_adaptive = pytest.mark.parametrize("case", ADAPTIVE, ids=ids(ADAPTIVE))


def check_max_pool(case, dtype, rng, values):
    x = values(rng, case.input_shape, dtype)
    expected, expected_indices = reference.max_pool2d(x, **case.options, return_indices=True)
    output, indices = F.max_pool2d(x, **case.options, return_indices=True)
    assert_same_bits(output, expected, "output")
    assert_same_bits(indices, expected_indices, "indices")
    assert_same_bits(F.max_pool2d(x, **case.options), expected, "output alone")
    g = small_integers(rng, expected.shape, dtype)
    gradient = F.max_pool2d_backward(g, x, **case.options)
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(gradient, reference.max_pool2d_backward(g, x, **case.options))


@pytest.mark.parametrize("values", [distinct, small_integers], ids=["distinct", "ties"])
@both_dtypes
@each_max
def test_max_pool2d_is_exact(case, dtype, values, rng):
    check_max_pool(case, dtype, rng, values)


def with_nan(rng, shape, dtype):
    """Many ties, and a tenth of NaN and infinities."""
    x = small_integers(rng, shape, dtype)
    for odd in (np.nan, np.inf, -np.inf):
        x[rng.random(shape) < 0.04] = odd
    return x


@each_max
def test_max_pool2d_with_nan_and_infinities(case, rng):
    check_max_pool(case, np.float32, rng, with_nan)


def test_max_pool2d_of_nothing_but_minus_infinity():
    """The padding is -inf too and must not win: indices and gradients stay inside the input."""
    x = np.full((1, 3, 5, 4), -np.inf, np.float32)
    output, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert np.all(output == -np.inf)
    np.testing.assert_array_equal(indices[0, 0], [[0, 1], [4, 5], [12, 13]])
    assert F.max_pool2d_backward(np.ones_like(output), x, 3, 2, 1).sum() == output.size


@both_dtypes
@pytest.mark.parametrize("count_include_pad", [True, False])
@each_average
def test_avg_pool2d(case, count_include_pad, dtype, rng):
    options = {**case.average_options, "count_include_pad": count_include_pad}
    eps = np.finfo(dtype).eps
    x = small_integers(rng, case.input_shape, dtype)
    expected = reference.avg_pool2d(x.astype(np.float64), **options)
    output = F.avg_pool2d(x, **options)
    assert output.dtype == dtype
    assert_within(output, expected, 2 * eps * np.abs(expected), "output")  # the sum is exact: one division, or one product with an inverse
    g = small_integers(rng, expected.shape, dtype)
    gradient = F.avg_pool2d_backward(g, case.input_shape, **options)
    assert gradient.dtype == dtype
    magnitude = reference.avg_pool2d_backward(np.abs(g).astype(np.float64), case.input_shape, **options)
    assert_within(
        gradient, reference.avg_pool2d_backward(g.astype(np.float64), case.input_shape, **options), 8 * eps * magnitude, "gradient"
    )


@both_dtypes
@each_adaptive
def test_adaptive_avg_pool2d(case, dtype, rng):
    _, shape, output_size = case
    eps = np.finfo(dtype).eps
    x = small_integers(rng, shape, dtype)
    expected = reference.adaptive_avg_pool2d(x.astype(np.float64), output_size)
    output = F.adaptive_avg_pool2d(x, output_size)
    assert output.dtype == dtype
    assert_within(output, expected, 2 * eps * np.abs(expected), "output")
    g = small_integers(rng, expected.shape, dtype)
    gradient = F.adaptive_avg_pool2d_backward(g, shape)
    assert gradient.dtype == dtype
    magnitude = reference.adaptive_avg_pool2d_backward(np.abs(g).astype(np.float64), shape)
    assert_within(gradient, reference.adaptive_avg_pool2d_backward(g.astype(np.float64), shape), 8 * eps * magnitude, "gradient")


@each_average
def test_average_gradients_are_adjoint(case, rng):
    """<pool(x), g> = <x, backward(g)>."""
    x = rng.standard_normal(case.input_shape)
    y = F.avg_pool2d(x, **case.average_options)
    g = rng.standard_normal(y.shape)
    assert np.sum(x * F.avg_pool2d_backward(g, x.shape, **case.average_options)) == pytest.approx(np.sum(y * g), rel=0, abs=1e-12)


@each_adaptive
def test_adaptive_gradients_are_adjoint(case, rng):
    x = rng.standard_normal(case[1])
    y = F.adaptive_avg_pool2d(x, case[2])
    g = rng.standard_normal(y.shape)
    assert np.sum(x * F.adaptive_avg_pool2d_backward(g, x.shape)) == pytest.approx(np.sum(y * g), rel=0, abs=1e-12)


@st.composite
def pools(draw, dilations):
    twice = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride, dilation = draw(twice), draw(twice), draw(dilations)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # large enough that every window sees the input
    size = [d * (k - 1) + 1 + draw(st.integers(0, 9)) for k, d in zip(kernel, dilation, strict=True)]
    C = draw(st.sampled_from([1, 2, 3, 7, 16, 17, 33]))
    return Pool("drawn", draw(st.integers(0, 3)), C, *size, kernel, stride, padding, dilation, draw(st.booleans()))


@settings(max_examples=60)
@given(pools(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)])), st.integers(0, 2**32))
def test_drawn_max_pools_are_exact(case, seed):
    check_max_pool(case, np.float32, np.random.default_rng(seed), small_integers)


@settings(max_examples=60)
@given(pools(st.just((1, 1))), st.booleans(), st.integers(0, 2**32))
def test_drawn_average_pools(case, count_include_pad, seed):
    options = {**case.average_options, "count_include_pad": count_include_pad}
    rng = np.random.default_rng(seed)
    x = small_integers(rng, case.input_shape)
    expected = reference.avg_pool2d(x, **options)
    assert_within(F.avg_pool2d(x, **options), expected, 1e-15 * (1 + np.abs(expected)))
    g = small_integers(rng, expected.shape)
    assert_within(F.avg_pool2d_backward(g, x.shape, **options), reference.avg_pool2d_backward(g, x.shape, **options), 1e-13)

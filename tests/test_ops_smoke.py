"""Elementary functions of vectors against float64; the forms of operations that layers use to remember less."""

import math

import numba
import numpy as np
import pytest
from checks import assert_same_bits, distinct

from fastconv import functional as F
from fastconv.functional.flat import Flat
from fastconv.functional.norm import batch_norm_backward_saved, batch_norm_forward_saved
from fastconv.functional.pool import max_pool2d_backward_argmax, max_pool2d_forward_argmax
from fastconv.kernels import elementary, vector
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.vector import lanes
from fastconv.kernels.vector_memory import load, load_or, load_unsigned, store

FUNCTIONS = ("exp", "log", "log1p", "tanh", "sigmoid", "normal_tail")


@numba.njit(error_model="numpy")
def apply(which, x, y):
    for i in range(0, x.size, lanes(x)):
        v = load(x, i, x.size - i)
        if which == 0:
            v = elementary.exp(v)
        elif which == 1:
            v = elementary.log(v)
        elif which == 2:
            v = elementary.log1p(v)
        elif which == 3:
            v = elementary.tanh(v)
        elif which == 4:
            v = elementary.sigmoid(v)
        else:
            v = elementary.normal_tail(v)
        store(y, i, v, x.size - i)


def evaluate(name, x):
    y = np.empty_like(x)
    apply(FUNCTIONS.index(name), x, y)
    return y


def exact(name, x):
    """In float64, from the C library."""
    if name == "sigmoid":
        return np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))
    if name == "normal_tail":
        return 0.5 * np.array([math.erfc(v) for v in x * math.sqrt(0.5)])
    return getattr(np, name)(x)


# --- elementary functions ------------------------------------------------------------------------------------------------

ACCURACY = [  # function, from, to, largest error in units in the last place: what the module's docstring says
    ("exp", -104.0, 88.7, 1.1),
    ("log", 0.0, 3e38, 0.9),
    ("log1p", -1.0, 1.0, 1.5),
    ("tanh", -20.0, 20.0, 1.5),
    ("sigmoid", -104.0, 104.0, 2.2),
    ("normal_tail", 0.0, 1.0, 4),
    ("normal_tail", 1.0, 5.0, 12),
    ("normal_tail", 5.0, 13.0, 32),
]


def floats(low, high, step):
    """Every `step`-th float32 from low to high: each exponent gets its share, subnormal numbers too."""
    patterns = np.arange(0, 0x7F800000, step, dtype=np.uint32)
    values = np.concatenate([patterns, patterns | np.uint32(1 << 31)]).view(np.float32)
    return values[(values >= low) & (values <= high)]


@pytest.mark.parametrize(("name", "low", "high", "bound"), ACCURACY, ids=lambda value: str(value))
def test_float32_functions_are_accurate(name, low, high, bound):
    x = floats(low, high, 20011 if name == "normal_tail" else 1009)
    with np.errstate(divide="ignore"):
        expected = exact(name, x.astype(np.float64))
    finite = np.isfinite(expected)
    actual = evaluate(name, x).astype(np.float64)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    unit = np.spacing(np.abs(expected[finite]).astype(np.float32)).astype(np.float64)
    errors = np.abs(actual[finite] - expected[finite]) / unit
    assert errors.max() <= bound, f"{errors.max()} at {x[finite][errors.argmax()]}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_functions_are_the_c_librarys(name):
    x = np.linspace(0, 1, 1001) if name == "log1p" else np.concatenate([np.linspace(1e-9, 30, 1001), [1e-300, 700.0]])
    if name in ("exp", "tanh", "sigmoid"):
        x = np.concatenate([x, -x])
    np.testing.assert_allclose(evaluate(name, x), exact(name, x), rtol=8 * np.finfo(float).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_at_their_limits(dtype):
    nan, inf = np.nan, np.inf
    x = np.array([0, -0.0, inf, -inf, nan, 1000, -1000], dtype)
    limits = {
        "exp": [1, 1, inf, 0, nan, inf, 0],
        "tanh": [0, 0, 1, -1, nan, 1, -1],
        "sigmoid": [0.5, 0.5, 1, 0, nan, 1, 0],
    }
    for name, expected in limits.items():
        np.testing.assert_array_equal(evaluate(name, x), np.array(expected, dtype), name)
    x = np.array([0, -0.0, inf, nan, -1, -inf, 1], dtype)
    np.testing.assert_array_equal(evaluate("log", x), np.array([-inf, -inf, inf, nan, nan, nan, 0], dtype))
    np.testing.assert_array_equal(evaluate("log1p", np.array([-1, 0, nan], dtype)), np.array([-inf, 0, nan], dtype))
    np.testing.assert_array_equal(evaluate("normal_tail", np.array([0, inf, nan, 1000], dtype)), np.array([0.5, 0, nan, 0], dtype))


# --- vectors -------------------------------------------------------------------------------------------------------------


@numba.njit
def reductions(x, count, out):
    v = load_or(x, 0, count, -1.0)
    out[0], out[1] = vector.sum_lanes(v), vector.max_lanes(v)
    out[2] = vector.count_lanes((v > 0.0) & vector.within(v, count))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_of_partial_vectors(dtype):
    x, out = np.arange(64, dtype=dtype), np.empty(3)
    width = VECTOR_BYTES // x.itemsize
    for count in range(width + 5):
        reductions(x, count, out)
        seen = min(count, width)
        expected = np.concatenate([x[:seen], np.full(width - seen, -1)])
        np.testing.assert_array_equal(out, [expected.sum(), expected.max(), max(seen - 1, 0)])
    x[1] = np.nan
    reductions(x, width, out)
    assert np.isnan(out[:2]).all()


@numba.njit
def positive_first(x, numbers, out, places):
    v = load(x, 0, vector.lanes(x))
    count = vector.count_lanes(v > 0.0)
    store(out, 0, vector.compress(v, v > 0.0), count)
    store(places, 0, vector.compress(load_unsigned(numbers, 0, vector.lanes(x), v), v > 0.0), count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_side_by_side(dtype, rng):
    width = VECTOR_BYTES // np.dtype(dtype).itemsize
    for share in (0, 0.1, 0.5, 0.9, 1):
        for _ in range(20):
            x, out = np.where(rng.random(width) < share, 1, -1) * rng.random(width), np.zeros(width, dtype)
            x = x.astype(dtype)
            places = np.zeros(width, np.int32)
            positive_first(x, np.arange(width, dtype=np.int32), out, places)
            kept = x[x > 0]
            np.testing.assert_array_equal(out, np.concatenate([kept, np.zeros(width - kept.size, dtype)]))
            np.testing.assert_array_equal(places[: kept.size], np.flatnonzero(x > 0))
            assert not places[kept.size :].any()


# --- memory order --------------------------------------------------------------------------------------------------------


def test_flat_keeps_dense_memory_and_restores_its_order(rng):
    for shape, axes in (((2, 3, 4, 5), (0, 1, 2, 3)), ((2, 4, 5, 3), (0, 3, 1, 2)), ((6, 7), (0, 1)), ((), ())):
        a = rng.standard_normal(shape).transpose(axes)
        flat = Flat("a", a)
        assert np.shares_memory(flat.values, a)
        restored = flat.restore(flat.values)
        assert restored.strides == a.strides
        np.testing.assert_array_equal(restored, a)
        other = rng.standard_normal(a.shape)
        np.testing.assert_array_equal(flat.restore(flat.beside("other", other)), other)


# --- what layers remember ------------------------------------------------------------------------------------------------

WINDOWS = [(2,), (2, 2, 1), (3, 2, 1), (3, 1, 1, 2), ((3, 2), (2, 3)), (17, 1, 8)]


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_max_pool2d_from_remembered_windows(options, rng):
    x = distinct(rng, (3, 5, 18, 19), np.float32)
    output, argmax = max_pool2d_forward_argmax(x, *options)
    assert argmax.dtype == (np.uint16 if options[0] == 17 else np.uint8)
    assert_same_bits(output, F.max_pool2d(x, *options))
    g = distinct(rng, output.shape, np.float32)
    actual = max_pool2d_backward_argmax(g, argmax, x.shape, *options)
    assert_same_bits(actual, F.max_pool2d_backward(g, x, *options))
    with pytest.raises(ValueError, match="argmax"):
        max_pool2d_backward_argmax(g, argmax[..., :-1], x.shape, *options)
    with pytest.raises(ValueError, match="argmax"):
        max_pool2d_backward_argmax(g, argmax.astype(np.int64), x.shape, *options)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_from_remembered_statistics(training, rng):
    x, g = distinct(rng, (3, 5, 6, 7), np.float32), distinct(rng, (3, 5, 6, 7), np.float32)
    mean, var, weight = distinct(rng, (5,), np.float32), distinct(rng, (5,), np.float32) ** 2, distinct(rng, (5,), np.float32)
    expected = F.batch_norm_backward(g, x, mean, var, weight, training=training)
    output, saved = batch_norm_forward_saved(x, mean.copy(), var.copy(), weight, training=training)
    assert_same_bits(output, F.batch_norm(x, mean.copy(), var.copy(), weight, training=training))
    for actual, e in zip(batch_norm_backward_saved(g, x, saved, weight, None, training), expected, strict=True):
        assert_same_bits(actual, e)
    masked = batch_norm_backward_saved(g, x, saved, weight, None, training, output_mask=(False, True, False))
    assert masked[0] is None and masked[2] is None
    assert_same_bits(masked[1], expected[1])


def test_dropout_draws_the_same_mask_for_any_memory_and_dtype():
    x = np.ones((4, 3, 10, 11), np.float32)
    _, mask = F.dropout(x, 0.4, rng=np.random.default_rng(3), return_mask=True)
    for other in (np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), np.asfortranarray(x), x.astype(np.float64)):
        np.testing.assert_array_equal(F.dropout(other, 0.4, rng=np.random.default_rng(3), return_mask=True)[1], mask)
    np.testing.assert_array_equal(F.dropout_backward(x, np.asfortranarray(mask), 0.4), F.dropout(x, 0.4, rng=np.random.default_rng(3)))


# --- gradients of losses -------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_reduced_loss_takes_a_number(rng):
    x, t = distinct(rng, (6, 4), np.float64), rng.integers(0, 4, 6)
    np.testing.assert_allclose(F.cross_entropy_backward(x, t, grad_output=3), 3 * F.cross_entropy_backward(x, t), rtol=1e-14)
    np.testing.assert_allclose(F.mse_loss_backward(x, x + 1, grad_output=0.5), 0.5 * F.mse_loss_backward(x, x + 1), rtol=1e-14)
    with pytest.raises(TypeError, match="grad_output"):
        F.mse_loss_backward(x, x, grad_output=np.ones_like(x))


def test_a_large_mean_does_not_spoil_the_variance(rng):
    """Where E[x^2] - E[x]^2 would lose every digit."""
    x = rng.standard_normal((40, 3, 16, 16)).astype(np.float32)
    shifted = x + np.float32(4096)
    var, shifted_var = np.ones(3, np.float32), np.ones(3, np.float32)
    F.batch_norm(x, np.zeros(3, np.float32), var, training=True, momentum=1.0)
    F.batch_norm(shifted, np.zeros(3, np.float32), shifted_var, training=True, momentum=1.0)
    exact_var = shifted.astype(np.float64).var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(shifted_var, exact_var, rtol=1e-5)
    np.testing.assert_allclose(var, x.astype(np.float64).var(axis=(0, 2, 3), ddof=1), rtol=1e-6)

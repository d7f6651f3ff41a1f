"""NaN, infinities, and numbers at the ends of the range: they go where the formula sends them, and nowhere else."""

import numpy as np
import pytest
from checks import assert_same_bits, distinct, small_integers
from ops import ACTIVATIONS, ids

from fastconv import functional as F
from fastconv import get_winograd, reference, set_winograd

nan, inf = np.nan, np.inf
ALGORITHMS = ("loops", "direct", "im2col", "auto")


def assert_same_meaning(actual, expected, what=""):
    """Equal whole numbers, NaN for NaN and infinity for infinity."""
    np.testing.assert_array_equal(actual, expected, err_msg=what)


# --- convolution ---------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [  # input, weight, options; no padding where a NaN would meet its zeros
    ((2, 3, 7, 9), (17, 3, 3, 3), {}),
    ((2, 3, 7, 9), (17, 3, 3, 2), {"padding": 2}),
    ((2, 33, 9, 8), (16, 33, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 17, 5, 4), (33, 17, 1, 1), {}),
    ((1, 6, 8, 9), (9, 2, 3, 3), {"groups": 3, "dilation": 2}),
    ((2, 17, 7, 6), (17, 1, 3, 3), {"groups": 17, "padding": 1}),
]


@pytest.fixture
def without_winograd():
    """What "auto" takes but for Winograd's algorithm, whose tiles mix all that they see, where that pays on this processor."""
    allowed = get_winograd()
    set_winograd(False)
    yield
    set_winograd(allowed)


@pytest.mark.usefixtures("without_winograd")
@pytest.mark.parametrize("odd", [nan, inf, -inf])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("shape", "weight_shape", "options"), CONVOLUTIONS, ids=str)
def test_one_odd_input_reaches_the_windows_that_see_it(shape, weight_shape, options, algorithm, odd, rng):
    x, w = small_integers(rng, shape, np.float32), small_integers(rng, weight_shape, np.float32)
    x[0, 1, 3, 2] = odd
    w[w == 0] = 1  # inf * 0 is NaN
    with np.errstate(invalid="ignore"):
        assert_same_meaning(F.conv2d(x, w, **options, algorithm=algorithm), reference.conv2d(x, w, **options), "output")
        y = reference.conv2d(x, w, **options)
        g = small_integers(rng, y.shape, np.float32)
        g[g == 0] = 1
        grad_weight = F.conv2d_backward(g, x, w, **options, algorithm=algorithm)[1]
        assert_same_meaning(grad_weight, reference.conv2d_backward(g, x, w, **options)[1], "grad_weight")


@pytest.mark.usefixtures("without_winograd")
@pytest.mark.parametrize("odd", [nan, inf])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("shape", "weight_shape", "options"), CONVOLUTIONS, ids=str)
def test_one_odd_gradient_reaches_what_its_window_sees(shape, weight_shape, options, algorithm, odd, rng):
    x, w = small_integers(rng, shape, np.float32), small_integers(rng, weight_shape, np.float32)
    x[x == 0], w[w == 0] = 1, 1
    g = small_integers(rng, reference.conv2d(x, w, **options).shape, np.float32)
    g[0, 2, 1, 2] = odd  # its window lies inside the input: no product with the padding's zeros
    with np.errstate(invalid="ignore"):
        gradients = F.conv2d_backward(g, x, w, **options, algorithm=algorithm)
        expected = reference.conv2d_backward(g, x, w, **options)
    for name, actual, e in zip(("grad_input", "grad_weight", "grad_bias"), gradients, expected, strict=True):
        if name == "grad_weight" and options.get("padding"):  # the window of (1, 2) may reach into the padding
            e[2], actual[2] = 0, 0
        assert_same_meaning(actual, e, name)


@pytest.mark.usefixtures("without_winograd")
@pytest.mark.parametrize("odd", [nan, inf])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_odd_weight_reaches_its_channels_alone(algorithm, odd, rng):
    """Channels of other filters and of other inputs stay what they are, also in the tails of vectors. At the borders of the input's
    gradient an algorithm may or may not multiply the weight with zeros that stand for missing windows."""
    x, w = small_integers(rng, (2, 18, 7, 9), np.float32), small_integers(rng, (17, 18, 3, 3), np.float32)
    x[x == 0] = 1
    w[16, 17, 1, 1] = odd
    np.testing.assert_array_equal(F.conv2d(x, w, algorithm=algorithm), reference.conv2d(x, w))
    g = np.ones((2, 17, 5, 7), np.float32)
    grad_input = F.conv2d_backward(g, x, w, algorithm=algorithm)[0]
    expected = reference.conv2d_backward_input(g, w, x.shape)
    assert_same_meaning(grad_input[:, :17], expected[:, :17])
    assert_same_meaning(grad_input[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2])


def test_conv_transpose2d_with_nan(rng):
    x, w = small_integers(rng, (2, 3, 4, 5), np.float32), small_integers(rng, (3, 17, 3, 3), np.float32)
    x[1, 2, 2, 3] = nan
    assert_same_meaning(F.conv_transpose2d(x, w, stride=2), reference.conv_transpose2d(x, w, stride=2))


def test_linear_with_nan_and_infinities(rng):
    x, w = small_integers(rng, (5, 33), np.float32), small_integers(rng, (17, 33), np.float32)
    w[w == 0] = 1
    x[1, 4], x[2, 32], x[4, 0] = nan, inf, -inf
    with np.errstate(invalid="ignore"):
        assert_same_meaning(F.linear(x, w), reference.linear(x, w))
    g = small_integers(rng, (5, 17), np.float32)
    g[g == 0], x[np.isinf(x)] = 1, 2
    for actual, expected in zip(F.linear_backward(g, x, w), reference.linear_backward(g, x, w), strict=True):
        assert_same_meaning(actual, expected)


# --- pooling (the maximum: tests/test_gradients_pool.py) -----------------------------------------------------------------


def test_averages_with_nan_and_infinities(rng):
    x = small_integers(rng, (2, 17, 6, 8), np.float32)
    x[0, 3, 2, 5], x[1, 16, 0, 0], x[1, 0, 5, 7], x[1, 0, 4, 7] = nan, inf, -inf, inf
    with np.errstate(invalid="ignore"):
        assert_same_meaning(F.avg_pool2d(x, 2, padding=1), reference.avg_pool2d(x, 2, padding=1))
        assert_same_meaning(F.adaptive_avg_pool2d(x, (3, 2)), reference.adaptive_avg_pool2d(x.astype(float), (3, 2)).astype(np.float32))


def test_max_pool2d_backward_moves_odd_gradients(rng):
    x, g = distinct(rng, (1, 3, 6, 4), np.float32), small_integers(rng, (1, 3, 3, 2), np.float32)
    g[0, 1, 1, 1], g[0, 2, 0, 0] = nan, -inf
    assert_same_meaning(F.max_pool2d_backward(g, x, 2), reference.max_pool2d_backward(g, x, 2))


# --- normalisation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [nan, inf])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_batch_norm_keeps_odd_numbers_in_their_channel(training, odd, rng):
    x = distinct(rng, (3, 17, 4, 5), np.float32)
    plain = x.copy()
    x[1, 5, 2, 3] = odd
    running = np.zeros(17, np.float32), np.ones(17, np.float32)
    y = F.batch_norm(x, *(a.copy() for a in running), training=training)
    expected = F.batch_norm(plain, *(a.copy() for a in running), training=training)
    others = np.arange(17) != 5
    assert_same_bits(y[:, others], expected[:, others])
    if training:
        assert np.isnan(y[1, 5, 2, 3])
        if np.isnan(odd):
            assert np.isnan(y[:, 5]).all()
    else:
        assert_same_meaning(y[1, 5, 2, 3], np.float32(odd))
        y[1, 5, 2, 3] = expected[1, 5, 2, 3]
        assert_same_bits(y, expected)
    g = distinct(rng, x.shape, np.float32)
    gradients = F.batch_norm_backward(g, x, *running, training=training)
    expected = F.batch_norm_backward(g, plain, *running, training=training)
    assert_same_bits(gradients[0][:, others], expected[0][:, others])
    for actual, e in zip(gradients[1:], expected[1:], strict=True):
        assert_same_bits(actual[others], e[others])
    assert not np.isfinite(gradients[1][5])


# --- activations and losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("op", ACTIVATIONS, ids=ids(ACTIVATIONS))
def test_activations_keep_nan(op, dtype):
    """Alone and anywhere in a vector; backward as well, but for max(x, 0), which PyTorch lets the gradient pass."""
    for position in range(37):
        x = np.full(37, 0.5, dtype)
        x[position] = nan
        expected = np.isnan(x)
        np.testing.assert_array_equal(np.isnan(op.forward(F, input=x)), expected)
        gradient = op.backward(F, np.ones_like(x), input=x)["input"]
        np.testing.assert_array_equal(np.isnan(gradient), expected & ("relu" not in op.name))
        g = np.ones_like(x)
        g[position] = nan
        np.testing.assert_array_equal(np.isnan(op.backward(F, g, input=np.full_like(x, 0.5))["input"]), expected)


LIMITS = {  # at minus infinity, at infinity, and the derivatives there
    "relu": (0, inf, 0, 1),
    "leaky_relu": (-inf, inf, 0.01, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
}


@pytest.mark.parametrize("name", LIMITS)
def test_activations_at_infinity(name):
    x = np.array([-inf, inf] * 20, np.float32)
    low, high, low_slope, high_slope = LIMITS[name]
    np.testing.assert_array_equal(getattr(F, name)(x), np.array([low, high] * 20, np.float32))
    np.testing.assert_array_equal(getattr(F, f"{name}_backward")(np.ones_like(x), x), np.array([low_slope, high_slope] * 20, np.float32))


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations_that_are_products_at_infinity(name):
    """x * 0 at minus infinity: its limit 0 or, as PyTorch computes it, NaN; but no other number."""
    y = getattr(F, name)(np.array([inf, -inf], np.float32))
    assert y[0] == inf
    assert y[1] == 0 or np.isnan(y[1])


def test_relu_of_zeros_is_zero_and_blocks_the_gradient():
    x = np.array([0.0, -0.0, np.finfo(np.float32).tiny, -np.finfo(np.float32).tiny], np.float32)
    np.testing.assert_array_equal(F.relu(x), [0, 0, np.finfo(np.float32).tiny, 0])
    np.testing.assert_array_equal(F.relu_backward(np.ones_like(x), x), [0, 0, 1, 0])


@pytest.mark.parametrize("dim", [-1, 0])
def test_softmax_with_infinities_and_nan(dim):
    rows = np.array([[0, -inf, 0], [-inf, 5, -inf], [-inf, -inf, -inf], [inf, 0, 0], [nan, 0, 1], [0, 0, -inf]], np.float32)
    expected = np.array([[0.5, 0, 0.5], [0, 1, 0], [nan] * 3, [nan] * 3, [nan] * 3, [0.5, 0.5, 0]], np.float32)
    logs = np.array([[np.log(0.5), -inf, np.log(0.5)], [-inf, 0, -inf], [nan] * 3, [nan] * 3, [nan] * 3, [np.log(0.5), np.log(0.5), -inf]])
    if dim == 0:
        rows, expected, logs = rows.T, expected.T, logs.T
    np.testing.assert_allclose(F.softmax(rows, dim), expected, rtol=1e-6)
    actual = F.log_softmax(rows, dim)
    # inf - inf and 0 * inf: a row that holds inf is NaN but for what PyTorch also leaves at -inf
    certain = ~np.isposinf(rows).any(axis=dim, keepdims=True) & np.ones(rows.shape, bool)
    np.testing.assert_allclose(actual[certain], logs[certain], rtol=1e-6)


def test_losses_with_nan_are_nan():
    x = np.array([[1, nan, 2], [3, 4, 5]], np.float32)
    y = np.array([[1, 0, 1], [1, 0, 0]], np.float32)
    assert np.isnan(F.mse_loss(x, y))
    assert np.isnan(F.binary_cross_entropy_with_logits(x, y))
    assert np.isnan(F.cross_entropy(x, np.array([0, 1])))
    np.testing.assert_array_equal(np.isnan(F.cross_entropy(x, np.array([0, 1]), reduction="none")), [True, False])
    assert np.isnan(F.binary_cross_entropy(np.array([0.5, nan]), np.array([1.0, 0])))
    for backward in (F.mse_loss_backward, F.binary_cross_entropy_with_logits_backward):
        np.testing.assert_array_equal(np.isnan(backward(x, y)), np.isnan(x))
    np.testing.assert_array_equal(np.isnan(F.cross_entropy_backward(x, np.array([0, 1]))), [[True] * 3, [False] * 3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "gradient",
    [
        lambda x: F.cross_entropy_backward(x, np.array([0]), reduction="sum"),
        lambda x: F.binary_cross_entropy_with_logits_backward(x, np.zeros_like(x), reduction="sum"),
        lambda x: F.softmax_backward(np.array([[0, 1, 1]], x.dtype), F.softmax(x)),
        lambda x: F.log_softmax_backward(np.array([[-1, 0, 0]], x.dtype), F.log_softmax(x)),
        lambda x: F.sigmoid_backward(np.ones_like(x), x),
    ],
    ids=["cross_entropy", "binary_cross_entropy_with_logits", "softmax", "log_softmax", "sigmoid"],
)
def test_gradients_that_almost_vanish_are_zero(gradient, dtype):
    """Below them are numbers that become subnormal, with which some processors are slow, a few layers on."""
    limits = np.finfo(dtype)
    almost_nothing = limits.tiny / limits.eps
    _, kept, vanished = gradient(np.log(np.array([[1, almost_nothing * 20, almost_nothing / 20]], dtype)))[0]
    np.testing.assert_allclose(kept, almost_nothing * 20, rtol=1e-3)
    assert vanished == 0


# --- means of nothing ----------------------------------------------------------------------------------------------------


def test_cross_entropy_of_ignored_labels_alone():
    """The mean of nothing is NaN, as in PyTorch; its gradient is 0, so that training goes on."""
    x, target = np.ones((2, 3), np.float32), np.full(2, -100)
    assert np.isnan(F.cross_entropy(x, target))
    assert F.cross_entropy(x, target, reduction="sum") == 0
    np.testing.assert_array_equal(F.cross_entropy_backward(x, target), np.zeros((2, 3)))

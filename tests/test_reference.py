"""The reference is right by itself: numbers worked out by hand, and every gradient against differentiation by central differences."""

import numpy as np
import pytest
from checks import distinct, numerical_gradient
from ops import OPS, ids

from fastconv import reference


@pytest.mark.parametrize("op", OPS, ids=ids(OPS))
def test_gradient_is_the_derivative(op, rng):
    arguments = op.draw(rng)
    output = np.asarray(op.forward(reference, **arguments))
    covector = distinct(rng, output.shape) if output.ndim else np.float64(1)
    gradients = op.backward(reference, covector, **arguments)
    assert set(gradients) == {name for name, a in arguments.items() if a.dtype.kind == "f"} - set(op.unused)
    for name, gradient in gradients.items():
        numerical = numerical_gradient(lambda: np.sum(op.forward(reference, **arguments) * covector), arguments[name])
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("op", OPS, ids=ids(OPS))
def test_float32_stays_float32(op, rng):
    arguments = op.draw(rng, np.float32)
    output = op.forward(reference, **arguments)
    assert isinstance(output, float) or output.dtype == np.float32
    gradients = op.backward(reference, np.ones(np.shape(output), np.float32), **arguments)
    assert {name: g.dtype for name, g in gradients.items()} == dict.fromkeys(gradients, np.dtype(np.float32))


# --- convolution ---------------------------------------------------------------------------------------------------------

IMAGE = np.arange(1.0, 13).reshape(1, 1, 3, 4)
FILTER = np.array([[[[1.0, 10], [100, 1000]]]])


def test_conv2d_by_hand():
    expected = [[6521, 7632, 8743], [10965, 12076, 13187]]  # the digits' places of the filter: 1, 2, 5, 6 and so on
    np.testing.assert_array_equal(reference.conv2d(IMAGE, FILTER)[0, 0], expected)
    np.testing.assert_array_equal(reference.conv2d(IMAGE, FILTER, np.array([0.5]))[0, 0], np.add(expected, 0.5))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stride": 2}, [[6521, 8743]]),
        ({"stride": (1, 3)}, [[6521], [10965]]),
        ({"dilation": 2}, [[1 + 30 + 900 + 11000, 2 + 40 + 1000 + 12000]]),
        ({"dilation": (2, 3)}, [[1 + 40 + 900 + 12000]]),
        ({"padding": ((1, 0), (0, 0)), "stride": (3, 1)}, [[2100, 3200, 4300]]),
        ({"padding": ((0, 1), (1, 0)), "stride": (2, 4)}, [[5010], [90]]),
        ({"padding": "valid", "stride": 2}, [[6521, 8743]]),
        ({"padding": "same"}, [[6521, 7632, 8743, 804], [10965, 12076, 13187, 1208], [109, 120, 131, 12]]),
    ],
)
def test_conv2d_options_by_hand(options, expected):
    np.testing.assert_array_equal(reference.conv2d(IMAGE, FILTER, **options)[0, 0], expected)


def test_conv2d_groups_keep_to_their_channels():
    image, weight = np.array([1.0, 10, 100, 1000]).reshape(1, 4, 1, 1), np.array([[1.0, 2], [3, 4], [5, 6]])
    weight = np.concatenate([weight, 10 * weight])[:, :, None, None]
    expected = [21, 43, 65, 21000, 43000, 65000]
    np.testing.assert_array_equal(reference.conv2d(image, weight, groups=2).ravel(), expected)


def test_conv_transpose2d_by_hand():
    image = np.array([[[[1.0, 2], [3, 4]]]])
    np.testing.assert_array_equal(
        reference.conv_transpose2d(image, FILTER, stride=2)[0, 0],
        [[1, 10, 2, 20], [100, 1000, 200, 2000], [3, 30, 4, 40], [300, 3000, 400, 4000]],
    )
    np.testing.assert_array_equal(
        reference.conv_transpose2d(image, FILTER)[0, 0],
        [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]],
    )
    np.testing.assert_array_equal(reference.conv_transpose2d(image, FILTER, padding=1)[0, 0], [[1234]])
    np.testing.assert_array_equal(
        reference.conv_transpose2d(image, FILTER, stride=2, padding=1, output_padding=1, bias=np.array([0.5]))[0, 0],
        [[1000.5, 200.5, 2000.5], [30.5, 4.5, 40.5], [3000.5, 400.5, 4000.5]],
    )


# --- pooling -------------------------------------------------------------------------------------------------------------


def test_max_pool2d_by_hand():
    image = np.array([[[[1.0, 5, 2], [7, 3, 4], [6, 8, 9]]]])
    output, indices = reference.max_pool2d(image, 2, stride=1, return_indices=True)
    np.testing.assert_array_equal(output[0, 0], [[7, 5], [8, 9]])
    np.testing.assert_array_equal(indices[0, 0], [[3, 1], [7, 8]])
    np.testing.assert_array_equal(reference.max_pool2d(image, 2)[0, 0], [[7]])
    np.testing.assert_array_equal(reference.max_pool2d(image, 2, ceil_mode=True)[0, 0], [[7, 4], [8, 9]])
    np.testing.assert_array_equal(reference.max_pool2d(image, 2, padding=1)[0, 0], [[1, 5], [7, 9]])
    np.testing.assert_array_equal(reference.max_pool2d(image, 2, dilation=2)[0, 0], [[9]])
    np.testing.assert_array_equal(reference.max_pool2d(-image, 2, padding=1)[0, 0], [[-1, -2], [-6, -3]])


def test_max_pool2d_ties_and_nan():
    nan, inf = np.nan, np.inf
    tie = np.array([[[[1.0, 3, 3], [3, 0, 3]]]])
    np.testing.assert_array_equal(reference.max_pool2d(tie, 2, stride=1, return_indices=True)[1][0, 0], [[1, 1]])
    np.testing.assert_array_equal(reference.max_pool2d_backward(np.array([[[[5.0, 7]]]]), tie, 2, 1)[0, 0], [[0, 12, 0], [0, 0, 0]])
    some = np.array([[[[1.0, nan, 3], [inf, 2, 1]]]])
    output, indices = reference.max_pool2d(some, (2, 1), return_indices=True)
    np.testing.assert_array_equal(output[0, 0], [[inf, nan, 3]])
    np.testing.assert_array_equal(indices[0, 0], [[3, 1, 2]])
    np.testing.assert_array_equal(
        reference.max_pool2d(np.full((1, 1, 2, 2), -inf), 2, 2, 1, return_indices=True)[1][0, 0], [[0, 1], [2, 3]]
    )


def test_avg_pool2d_by_hand():
    image = np.array([[[[1.0, 5, 2], [7, 3, 4], [6, 8, 9]]]])
    np.testing.assert_array_equal(reference.avg_pool2d(image, 2, stride=1)[0, 0], [[4, 3.5], [6, 6]])
    np.testing.assert_array_equal(reference.avg_pool2d(image, 2, ceil_mode=True)[0, 0], [[4, 3], [7, 9]])
    np.testing.assert_array_equal(reference.avg_pool2d(image, 2, padding=1)[0, 0], [[0.25, 1.75], [3.25, 6]])
    np.testing.assert_array_equal(reference.avg_pool2d(image, 2, padding=1, count_include_pad=False)[0, 0], [[1, 3.5], [6.5, 6]])
    # a window that runs beyond the padding counts only what lies inside it: 2 x 2 of its 3 x 3
    np.testing.assert_array_equal(reference.avg_pool2d(image, 3, 3, 1, ceil_mode=True)[0, 0], [[16 / 9, 6 / 6], [14 / 6, 9 / 4]])


def test_adaptive_avg_pool2d_by_hand():
    image = np.array([[[[1.0, 5, 2], [7, 3, 4], [6, 8, 9]]]])
    np.testing.assert_array_equal(reference.adaptive_avg_pool2d(image, 1)[0, 0], [[5]])
    np.testing.assert_array_equal(reference.adaptive_avg_pool2d(image, 2)[0, 0], [[4, 3.5], [6, 6]])
    np.testing.assert_array_equal(reference.adaptive_avg_pool2d(image, (None, 1))[0, 0, :, 0] * 3, [8, 14, 23])


# --- the rest ------------------------------------------------------------------------------------------------------------


def test_linear_by_hand():
    np.testing.assert_array_equal(reference.linear(np.array([[1.0, 2]]), np.array([[3.0, 4], [5, 6]]), np.array([0.5, 0])), [[11.5, 17]])


def test_dropout_by_hand():
    mask = np.array([True, False, True])
    np.testing.assert_array_equal(reference.dropout(np.array([1.0, 2, 3]), mask, 0.75), [4, 0, 12])
    np.testing.assert_array_equal(reference.dropout_backward(np.array([1.0, 2, 3]), mask, 0.75), [4, 0, 12])
    np.testing.assert_array_equal(reference.dropout(np.array([1.0, 2, 3]), np.zeros(3, bool), 1), [0, 0, 0])


def test_batch_norm_by_hand():
    column = np.array([1.0, 3, 5, 7]).reshape(4, 1, 1, 1)  # mean 4, variance 5, unbiased 20/3
    mean, var = np.array([2.0]), np.array([1.0])
    output = reference.batch_norm(column, mean, var, np.array([2.0]), np.array([1.0]), training=True, momentum=0.25, eps=4.0)
    np.testing.assert_allclose(output.ravel(), [-1, 1 - 2 / 3, 1 + 2 / 3, 3], rtol=1e-15)
    np.testing.assert_allclose([mean[0], var[0]], [2.5, 0.75 + 5 / 3], rtol=1e-15)
    evaluated = reference.batch_norm(column, np.array([1.0]), np.array([3.0]), eps=1.0)
    np.testing.assert_array_equal(evaluated.ravel(), [0, 1, 2, 3])


def test_activations_by_hand():
    x = np.array([-1.0, 0, 2])
    np.testing.assert_array_equal(reference.relu(x), [0, 0, 2])
    np.testing.assert_array_equal(reference.leaky_relu(x, 0.25), [-0.25, 0, 2])
    np.testing.assert_allclose(reference.sigmoid(x), [0.2689414213699951, 0.5, 0.8807970779778824], rtol=1e-14)
    np.testing.assert_allclose(reference.silu(x), [-0.2689414213699951, 0, 1.7615941559557649], rtol=1e-14)
    np.testing.assert_allclose(reference.tanh(x), [-0.7615941559557649, 0, 0.9640275800758169], rtol=1e-14)
    np.testing.assert_allclose(reference.gelu(x), [-0.15865525393145707, 0, 1.9544997361036416], rtol=1e-14)
    np.testing.assert_allclose(reference.gelu(x, "tanh"), [-0.15880800939172324, 0, 1.954597694087775], rtol=1e-14)
    np.testing.assert_array_equal(reference.sigmoid(np.array([-1e4, 1e4])), [0, 1])
    powers = np.log([[1.0, 2, 5]])
    np.testing.assert_allclose(reference.softmax(powers), [[0.125, 0.25, 0.625]], rtol=1e-14)
    np.testing.assert_allclose(reference.log_softmax(powers + 1e3), np.log([[0.125, 0.25, 0.625]]), rtol=1e-12)


def test_losses_by_hand():
    powers, target = np.log([[1.0, 2, 5], [2, 2, 4], [1, 1, 2]]), np.array([2, 0, 1])
    singles = -np.log([0.625, 0.25, 0.25])
    np.testing.assert_allclose(reference.cross_entropy(powers, target, reduction="none"), singles, rtol=1e-14)
    assert reference.cross_entropy(powers, target) == pytest.approx(singles.mean(), rel=1e-14)
    weight = np.array([1.0, 2, 3])
    assert reference.cross_entropy(powers, target, weight) == pytest.approx(singles @ [3, 1, 2] / 6, rel=1e-14)
    assert reference.cross_entropy(powers, target, ignore_index=0) == pytest.approx(singles[[0, 2]].mean(), rel=1e-14)
    smooth = reference.cross_entropy(powers[:1], target[:1], label_smoothing=0.3)
    assert smooth == pytest.approx(-0.7 * np.log(0.625) - 0.1 * np.log([0.125, 0.25, 0.625]).sum(), rel=1e-14)

    a, y = np.array([0.2, 0.9, 0.0]), np.array([1.0, 0, 1])
    np.testing.assert_allclose(reference.binary_cross_entropy(a, y, reduction="none"), [-np.log(0.2), -np.log(0.1), 100], rtol=1e-14)
    z = np.array([np.log(0.25), 0, -1e4])
    expected = [-3 * np.log(0.2), -np.log(0.5), 3e4]
    pos_weight = np.array([3.0])
    np.testing.assert_allclose(
        reference.binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=pos_weight), expected, rtol=1e-14
    )
    assert reference.mse_loss(np.array([1.0, 2]), np.array([4.0, 0])) == 6.5


# --- optimizers ----------------------------------------------------------------------------------------------------------


def test_sgd_by_hand():
    w, v = reference.sgd(np.array([1.0]), np.array([2.0]), lr=0.5, momentum=0.5)
    assert (w, v) == (0, 2)
    w, v = reference.sgd(w, np.array([2.0]), v, lr=0.5, momentum=0.5, dampening=0.25)
    assert (w, v) == (-1.25, 2.5)
    w, v = reference.sgd(w, np.array([2.0]), v, lr=0.5, momentum=0.5, nesterov=True)
    assert (w, v) == (-1.25 - 0.5 * (2 + 0.5 * 3.25), 3.25)
    assert reference.sgd(np.array([1.0]), np.array([2.0]), lr=0.5, weight_decay=4.0) == (-2, None)


def test_adam_starts_with_a_step_of_lr():
    w, m, s = reference.adam(np.array([1.0]), np.array([4.0]), 0.0, 0.0, 1, lr=0.5, betas=(0.75, 0.5), eps=0.0)
    assert (w, m, s) == (0.5, 1, 8)
    w, m, s = reference.adam(w, np.array([-4.0]), m, s, 2, lr=0.5, betas=(0.75, 0.5), eps=1.0)
    assert (m, s) == (-0.25, 12)
    assert w == pytest.approx(0.5 + 0.5 * (0.25 / 0.4375) / (1 + 4), rel=1e-15)
    decayed, *_ = reference.adamw(np.array([1.0]), np.array([4.0]), 0.0, 0.0, 1, lr=0.5, eps=0.0, weight_decay=0.5)
    assert decayed == pytest.approx(0.75 - 0.5, rel=1e-15)


def test_rmsprop_by_hand():
    w, s, g, v = reference.rmsprop(np.array([1.0]), np.array([4.0]), 0.0, lr=0.5, alpha=0.75, eps=0.0)
    assert (w, s, g, v) == (0, 4, None, None)
    w, s, g, v = reference.rmsprop(np.array([1.0]), np.array([4.0]), 0.0, 0.0, lr=0.5, alpha=0.5, eps=2.0, momentum=0.5)
    assert (w, s, g, v) == (0.5, 8, 2, 1)
    w, s, g, v = reference.rmsprop(w, np.array([0.0]), s, g, v, lr=0.5, alpha=0.5, eps=2.0, momentum=0.5)
    assert (w, s, g, v) == (0.25, 4, 1, 0.5)

"""The example of the lecture, X (3,3) and W (2,2), number by number: every sum is written out as the lecture writes it."""

import numpy as np
import pytest

from fastconv import functional, reference

X11, X12, X13, X21, X22, X23, X31, X32, X33 = X = np.array([2.0, -1, 3, 0.5, 4, -2, 1, 5, -3])
W11, W12, W21, W22 = W = np.array([1.5, -2, 3, 0.25])
B1 = 0.75
D11, D12, D21, D22 = D = np.array([1.0, -0.5, 2, 4])
"""dL/dZ11, dL/dZ12, dL/dZ21, dL/dZ22: what comes back from the layers behind."""

ALGORITHMS = ("loops", "direct", "im2col", "auto", "reference")


def image(numbers, dtype):
    side = int(len(numbers) ** 0.5)
    return np.array(numbers, dtype).reshape(1, 1, side, side)


def conv2d(*arguments, algorithm, **options):
    if algorithm == "reference":
        return reference.conv2d(*arguments, **options)
    return functional.conv2d(*arguments, **options, algorithm=algorithm)


def conv2d_backward(*arguments, algorithm):
    if algorithm == "reference":
        return reference.conv2d_backward(*arguments)
    return functional.conv2d_backward(*arguments, algorithm=algorithm)


pytestmark = [pytest.mark.parametrize("dtype", [np.float32, np.float64]), pytest.mark.parametrize("algorithm", ALGORITHMS)]


def test_forward(algorithm, dtype):
    Z = conv2d(image(X, dtype), image(W, dtype), np.array([B1], dtype), algorithm=algorithm)
    Z11 = X11 * W11 + X12 * W12 + X21 * W21 + X22 * W22 + B1
    Z12 = X12 * W11 + X13 * W12 + X22 * W21 + X23 * W22 + B1
    Z21 = X21 * W11 + X22 * W12 + X31 * W21 + X32 * W22 + B1
    Z22 = X22 * W11 + X23 * W12 + X32 * W21 + X33 * W22 + B1
    np.testing.assert_array_equal(Z[0, 0], [[Z11, Z12], [Z21, Z22]])


def test_gradient_of_the_bias(algorithm, dtype):
    """b1 runs with every Zij."""
    _, _, db = conv2d_backward(image(D, dtype), image(X, dtype), image(W, dtype), algorithm=algorithm)
    np.testing.assert_array_equal(db, [D11 + D12 + D21 + D22])


def test_gradient_of_the_filter(algorithm, dtype):
    """W11 runs with Z11, Z12, Z21, Z22, that is with X11, X12, X21, X22; and so on for the others."""
    _, dW, _ = conv2d_backward(image(D, dtype), image(X, dtype), image(W, dtype), algorithm=algorithm)
    dW11 = D11 * X11 + D12 * X12 + D21 * X21 + D22 * X22
    dW12 = D11 * X12 + D12 * X13 + D21 * X22 + D22 * X23
    dW21 = D11 * X21 + D12 * X22 + D21 * X31 + D22 * X32
    dW22 = D11 * X22 + D12 * X23 + D21 * X32 + D22 * X33
    np.testing.assert_array_equal(dW[0, 0], [[dW11, dW12], [dW21, dW22]])


def test_gradient_of_the_filter_is_a_convolution_of_the_image(algorithm, dtype):
    """dL/dW1 = conv(X, dL/dZ1)."""
    _, dW, _ = conv2d_backward(image(D, dtype), image(X, dtype), image(W, dtype), algorithm=algorithm)
    np.testing.assert_array_equal(dW, conv2d(image(X, dtype), image(D, dtype), algorithm=algorithm))


def test_gradient_of_the_image(algorithm, dtype):
    """X11 runs with Z11 alone, X22 with all four."""
    dX, _, _ = conv2d_backward(image(D, dtype), image(X, dtype), image(W, dtype), algorithm=algorithm)
    expected = [
        [D11 * W11, D11 * W12 + D12 * W11, D12 * W12],
        [D11 * W21 + D21 * W11, D11 * W22 + D12 * W21 + D21 * W12 + D22 * W11, D12 * W22 + D22 * W12],
        [D21 * W21, D21 * W22 + D22 * W21, D22 * W22],
    ]
    np.testing.assert_array_equal(dX[0, 0], expected)


def test_gradient_of_the_image_is_the_full_convolution_with_the_rotated_filter(algorithm, dtype):
    """dL/dX = the convolution of dL/dZ1, padded by one zero all around, with W1 rotated by 180 degrees."""
    dX, _, _ = conv2d_backward(image(D, dtype), image(X, dtype), image(W, dtype), algorithm=algorithm)
    rotated = image(W, dtype)[:, :, ::-1, ::-1]
    np.testing.assert_array_equal(dX, conv2d(image(D, dtype), rotated, padding=1, algorithm=algorithm))

"""Every operation of the common table: its gradients against numerical differentiation, and both passes against the reference."""

import numpy as np
import pytest
from checks import assert_within, distinct
from ops import CONVOLUTIONS, OPS, TRANSPOSED, Op, ids

from fastconv import functional as F
from fastconv import gradcheck, reference

every_op = pytest.mark.parametrize("op", OPS, ids=ids(OPS))


def differentiable(op, arguments):
    return [name for name, a in arguments.items() if a.dtype.kind == "f" and name not in op.unused]


def check_derivative(op, module, arguments):
    """gradcheck, which passes what it differentiates by position."""
    names = differentiable(op, arguments)

    def forward(*arrays):
        return op.forward(module, **{**arguments, **dict(zip(names, arrays, strict=True))})

    def backward(grad_output, *arrays):
        gradients = op.backward(module, grad_output, **{**arguments, **dict(zip(names, arrays, strict=True))})
        scale = 1 if np.ndim(grad_output) else grad_output  # losses do not ask for the gradient of their one number
        return [scale * gradients[name] for name in names]

    assert gradcheck(forward, *(arguments[name] for name in names), backward=backward, rtol=1e-6, atol=1e-7)


@every_op
def test_gradient_is_the_derivative(op, rng):
    check_derivative(op, F, op.draw(rng))


class WithAlgorithm:
    """fastconv.functional with convolutions by one algorithm."""

    def __init__(self, algorithm):
        self.algorithm = algorithm

    def __getattr__(self, name):
        def call(*arguments, **options):
            return getattr(F, name)(*arguments, **options, algorithm=self.algorithm)

        return call


@pytest.mark.parametrize("algorithm", ["loops", "direct", "im2col"])
@pytest.mark.parametrize("op", CONVOLUTIONS + TRANSPOSED, ids=ids(CONVOLUTIONS + TRANSPOSED))
def test_gradient_is_the_derivative_by_every_algorithm(op, algorithm, rng):
    check_derivative(op, WithAlgorithm(algorithm), op.draw(rng))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@every_op
def test_both_passes_agree_with_the_reference(op, dtype, rng):
    """In float64 on the same numbers; all of them and all derivatives are of order 1, so a few hundred eps are rounding."""
    arguments = op.draw(rng, dtype)
    exact = {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in arguments.items()}
    output, expected = op.forward(F, **arguments), op.forward(reference, **exact)
    assert isinstance(output, float) if np.ndim(expected) == 0 else output.dtype == dtype
    bound = 50 * np.finfo(dtype).eps
    assert_within(np.asarray(output), np.asarray(expected), bound * (1 + np.abs(expected).max()), "output")
    grad_output = distinct(rng, np.shape(expected)).astype(dtype) if np.ndim(expected) else dtype(1)
    gradients = op.backward(F, grad_output, **arguments)
    naive = op.backward(reference, np.float64(grad_output), **exact)
    assert gradients.keys() == naive.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype, name
        assert_within(gradient, naive[name], bound * (1 + np.abs(naive[name]).max()), name)


def test_the_table_has_every_operation():
    """dropout has tests of its own: it draws at random."""
    promised = {name for name in F.__all__ if not name.endswith("_backward")} - {"dropout"}
    assert {op.function for op in OPS} == promised
    assert all(isinstance(op, Op) for op in OPS)
    assert len(set(ids(OPS))) == len(OPS)

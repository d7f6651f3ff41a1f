"""Convolutions, forward and all three gradients, by every algorithm, against the reference and against each other.

Small whole numbers make every sum exact, so most comparisons are for equality.
"""

import functools
import zlib

import numpy as np
import pytest
from cases import CONV, CONV_TRANSPOSE, SAME, Conv, ConvTranspose, ids
from checks import assert_within, exact_sums, small_integers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastconv import functional as F
from fastconv import reference

ALGORITHMS = ("loops", "direct", "im2col", "auto")
DTYPES = (np.float32, np.float64)
OP = {Conv: (F.conv2d, F.conv2d_backward), ConvTranspose: (F.conv_transpose2d, F.conv_transpose2d_backward)}
NAIVE = {
    Conv: (reference.conv2d, reference.conv2d_backward),
    ConvTranspose: (reference.conv_transpose2d, reference.conv_transpose2d_backward),
}
CASES = CONV + CONV_TRANSPOSE
IDS = ids(CONV) + [f"transposed_{name}" for name in ids(CONV_TRANSPOSE)]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def draw(case, rng, values):
    """input, weight, bias of a case."""
    return values(rng, case.input_shape), values(rng, case.weight_shape), values(rng, (case.OC,))


@functools.cache
def integer_problem(case):
    """Whole-number arguments and what the reference makes of them: (x, w, b), y, grad_output, (grad_x, grad_w, grad_b)."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    forward, backward = NAIVE[type(case)]
    arguments = draw(case, rng, small_integers)
    output = forward(*arguments, **case.options)
    grad_output = small_integers(rng, output.shape)
    return arguments, output, grad_output, backward(grad_output, *arguments[:2], **case.options)


@exact_sums()
def check_exact(case, algorithm, dtype):
    arguments, output, grad_output, gradients = integer_problem(case)
    forward, backward = OP[type(case)]
    x, w, b = (a.astype(dtype) for a in arguments)
    y = forward(x, w, b, **case.options, algorithm=algorithm)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, output, err_msg="output")
    computed = backward(grad_output.astype(dtype), x, w, **case.options, algorithm=algorithm)
    for name, actual, expected in zip(("grad_input", "grad_weight", "grad_bias"), computed, gradients, strict=True):
        assert actual.dtype == dtype, name
        np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@every_algorithm
@every_case
def test_whole_numbers_are_exact(case, algorithm, dtype):
    check_exact(case, algorithm, dtype)


def normal(rng, shape):
    return rng.standard_normal(shape).astype(np.float32)


@every_algorithm
@every_case
def test_rounding_errors_are_small(case, algorithm, rng):
    """Against float64, of the same float32 numbers: an error of a few eps times the sum of the magnitudes of what was added up."""
    arguments = draw(case, rng, normal)
    exact = [a.astype(np.float64) for a in arguments]
    (naive, naive_backward), (forward, backward) = NAIVE[type(case)], OP[type(case)]
    expected = naive(*exact, **case.options)
    grad_output = normal(rng, expected.shape)
    terms = max(1, max(a.size for a in (*exact, grad_output)))  # no sum has more
    factor = np.finfo(np.float32).eps * (4 + np.sqrt(terms) / 4)
    magnitude = naive(*map(np.abs, exact), **case.options)
    assert_within(forward(*arguments, **case.options, algorithm=algorithm), expected, factor * magnitude, "output")
    gradients = backward(grad_output, *arguments[:2], **case.options, algorithm=algorithm)
    wide = grad_output.astype(np.float64)
    expected = naive_backward(wide, *exact[:2], **case.options)
    magnitudes = naive_backward(np.abs(wide), *map(np.abs, exact[:2]), **case.options)
    for name, actual, e, m in zip(("grad_input", "grad_weight", "grad_bias"), gradients, expected, magnitudes, strict=True):
        assert_within(actual, e, factor * m, name)


def inner(a, b):
    return float(np.sum(a * b))


@every_algorithm
@every_case
def test_gradients_are_adjoint_to_the_forward_pass(case, algorithm, rng):
    """<conv(x, w), g> = <x, grad_input(g)> = <w, grad_weight(g)> and <b, grad_bias(g)> = what the bias adds, for random covectors g."""
    forward, backward = OP[type(case)]
    x, w, b = draw(case, rng, lambda rng, shape: rng.standard_normal(shape))
    y = forward(x, w, None, **case.options, algorithm=algorithm)
    g = rng.standard_normal(y.shape)
    grad_input, grad_weight, grad_bias = backward(g, x, w, **case.options, algorithm=algorithm)
    tolerance = 1e-13 * (1 + np.sqrt(inner(y, y) * inner(g, g)))
    assert inner(x, grad_input) == pytest.approx(inner(y, g), rel=0, abs=tolerance)
    assert inner(w, grad_weight) == pytest.approx(inner(y, g), rel=0, abs=tolerance)
    with_bias = forward(x, w, b, **case.options, algorithm=algorithm)
    tolerance = 1e-13 * (1 + np.sqrt(inner(with_bias, with_bias) * inner(g, g)))
    assert inner(b, grad_bias) == pytest.approx(inner(with_bias - y, g), rel=0, abs=tolerance)


# --- drawn shapes --------------------------------------------------------------------------------------------------------

channels = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 24, 31, 32, 33])


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    IC, OC = groups * draw(channels), groups * draw(channels)
    if draw(st.integers(0, 4)) == 0:
        groups = IC  # depthwise, with or without a multiplier
        OC = IC * draw(st.integers(1, 3))
    assume(IC * OC // groups <= 4096)
    kernel, stride = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (4, 2)]))
    if draw(st.integers(0, 5)) == 0:
        padding, stride = SAME, (1, 1)
        sides = (0, 0)
    else:
        sides = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        padding = (sides, draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
        sides = sum(padding[0]), sum(padding[1])
    least = [1 if padding == SAME else max(1, d * (k - 1) + 1 - p) for d, k, p in zip(dilation, kernel, sides, strict=True)]
    H, W = (low + draw(st.integers(0, 12)) for low in least)
    return Conv("drawn", draw(st.integers(0, 3)), IC, H, W, OC, kernel, stride, padding, dilation, groups)


@st.composite
def transposed_convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    IC, OC = groups * draw(channels), groups * draw(channels)
    assume(IC * OC // groups <= 2048)
    twice = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride, dilation, size = draw(twice), draw(twice), draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 2)])), draw(twice)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    whole = [(n - 1) * s + d * (k - 1) + e + 1 for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)]
    padding = tuple(draw(st.integers(0, min(3, (n - 1) // 2))) for n in whole)
    return ConvTranspose("drawn", draw(st.integers(0, 3)), IC, *size, OC, kernel, stride, padding, extra, groups, dilation)


@settings(max_examples=60)
@given(convolutions())
def test_drawn_convolutions_are_exact(case):
    for algorithm in ALGORITHMS:
        check_exact(case, algorithm, np.float32)


@settings(max_examples=40)
@given(transposed_convolutions())
def test_drawn_transposed_convolutions_are_exact(case):
    for algorithm in ALGORITHMS:
        check_exact(case, algorithm, np.float32)


# --- the interface -------------------------------------------------------------------------------------------------------

CONV_EXAMPLE = next(case for case in CONV if case.name == "asymmetric_strided")
TRANSPOSED_EXAMPLE = next(case for case in CONV_TRANSPOSE if case.name == "groups")
both = pytest.mark.parametrize("case", [CONV_EXAMPLE, TRANSPOSED_EXAMPLE], ids=["conv2d", "conv_transpose2d"])


@both
@every_algorithm
@pytest.mark.parametrize("mask", [(True, False, False), (False, True, False), (False, False, True), (False, False, False), (1, 1, 0)])
def test_output_mask_chooses_the_gradients(case, algorithm, mask):
    arguments, _, grad_output, gradients = integer_problem(case)
    computed = OP[type(case)][1](grad_output, *arguments[:2], **case.options, algorithm=algorithm, output_mask=mask)
    for wanted, actual, expected in zip(mask, computed, gradients, strict=True):
        if wanted:
            np.testing.assert_array_equal(actual, expected)
        else:
            assert actual is None


@both
@every_algorithm
def test_without_bias(case, algorithm):
    (x, w, b), output, _, _ = integer_problem(case)
    np.testing.assert_array_equal(OP[type(case)][0](x, w, **case.options, algorithm=algorithm), output - b[:, None, None])


@both
@every_algorithm
def test_arguments_are_left_alone_and_results_are_new(case, algorithm):
    arguments, _, grad_output, _ = integer_problem(case)
    kept = [a.copy() for a in (*arguments, grad_output)]
    forward, backward = OP[type(case)]
    results = [forward(*arguments, **case.options, algorithm=algorithm)]
    results += backward(grad_output, *arguments[:2], **case.options, algorithm=algorithm)
    for before, after in zip(kept, (*arguments, grad_output), strict=True):
        np.testing.assert_array_equal(before, after)
        assert not any(np.shares_memory(after, r) for r in results)
    assert all(r.flags.writeable for r in results)
    for r in results[:2]:
        assert r.transpose(0, 2, 3, 1).flags.c_contiguous, "activations are channels-last in memory"
    assert results[2].flags.c_contiguous


@pytest.mark.parametrize(
    ("padding", "sides"),
    [("valid", 0), (2, ((2, 2), (2, 2))), ((1, 2), ((1, 1), (2, 2))), ([1, 0], ((1, 1), (0, 0))), ("same", ((1, 1), (0, 1)))],
)
def test_paddings_that_mean_the_same(padding, sides, rng):
    x, w = small_integers(rng, (2, 3, 6, 7)), small_integers(rng, (4, 3, 3, 2))
    np.testing.assert_array_equal(F.conv2d(x, w, padding=padding), F.conv2d(x, w, padding=sides))


@pytest.mark.parametrize("algorithm", ["winograd", "Direct", "", None, 3])
def test_algorithms_that_do_not_fit_say_so(algorithm, rng):
    x, w = small_integers(rng, (1, 2, 9, 9)), small_integers(rng, (2, 2, 5, 5))
    with pytest.raises(ValueError, match="algorithm"):
        F.conv2d(x, w, stride=3, algorithm=algorithm)
    with pytest.raises(ValueError, match="algorithm"):
        F.conv2d_backward(small_integers(rng, (1, 2, 2, 2)), x, w, stride=3, algorithm=algorithm)

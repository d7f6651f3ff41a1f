"""Convolutions on matrix registers, against the textbook; what they promise about accuracy, and how to do without them."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastconv
from fastconv import functional as F
from fastconv import nn
from fastconv.errors import ArgumentTypeError
from fastconv.functional import conv, conv_amx, conv_direct, conv_winograd
from fastconv.kernels import amx
from fastconv.shapes import conv2d

needs_amx = pytest.mark.skipif(not amx.AVAILABLE, reason="this processor has no matrix registers, or code is generated for another")

FLOAT32 = np.dtype(np.float32)

GEOMETRIES = [  # input, weight, stride, padding, dilation, groups
    ((2, 32, 8, 8), (32, 32, 3, 3), 1, 1, 1, 1),
    ((3, 64, 9, 28), (48, 64, 3, 3), 1, 1, 1, 1),
    ((3, 48, 13, 15), (40, 48, 3, 3), 1, 1, 1, 1),  # rows of taps are runs; a part of a vector
    ((2, 16, 12, 11), (17, 16, 3, 5), 1, (1, 2), 1, 1),  # a single vector, and a lane more
    ((3, 33, 10, 9), (5, 33, 2, 3), 1, 0, 1, 1),  # an odd number of channels
    ((3, 64, 29, 28), (64, 64, 3, 3), 2, 1, 1, 1),
    ((2, 32, 17, 19), (25, 32, 5, 3), (3, 2), ((0, 1), (2, 0)), 1, 1),  # a block is all of a pixel
    ((2, 40, 17, 19), (36, 40, 5, 4), (2, 3), (2, 1), 1, 1),
    ((2, 6, 17, 19), (36, 6, 3, 7), (3, 2), ((0, 2), (4, 1)), 1, 1),
    ((3, 64, 11, 12), (128, 64, 1, 1), 2, 0, 1, 1),
    ((3, 128, 11, 12), (64, 128, 1, 1), (1, 2), 0, 1, 1),
    ((3, 64, 10, 10), (96, 64, 1, 1), 1, 0, 1, 1),
    ((2, 64, 3, 4), (96, 64, 1, 1), (3, 1), 0, 1, 1),  # one row of outputs has no stride
    ((2, 64, 3, 4), (96, 64, 1, 1), 4, 0, 1, 1),
    ((2, 64, 10, 10), (96, 64, 1, 1), 1, 1, 1, 1),  # a border of nothing but bias
    ((2, 64, 14, 15), (64, 64, 3, 3), 1, 2, 2, 1),
    ((2, 34, 14, 15), (20, 34, 3, 2), 2, (2, 3), (1, 3), 1),
    ((3, 64, 12, 12), (64, 32, 3, 3), 1, 1, 1, 2),
    ((3, 36, 14, 13), (64, 18, 5, 5), 2, 1, 1, 2),
    ((2, 12, 14, 13), (10, 6, 3, 3), 1, 1, 1, 2),
    ((2, 100, 20, 20), (60, 100, 5, 3), (2, 1), (1, 2), (1, 2), 1),
    ((40, 64, 7, 7), (64, 64, 3, 3), 1, 1, 1, 1),  # several images a job, with a rest
    ((1, 8, 30, 1200), (16, 8, 5, 3), 1, 1, 1, 1),  # rows are cut
    ((1, 300, 40, 60), (40, 300, 3, 3), 1, 1, 1, 1),  # columns, too
    ((2, 40, 3, 4000), (33, 40, 2, 3), 1, (0, 2), 1, 1),  # also for the weight
    ((1, 4, 1, 3), (3, 4, 1, 3), 1, 0, 1, 1),  # one output
    ((1, 64, 12, 200), (64, 64, 1, 1), 1, ((0, 0), (40, 40)), 1, 1),  # more padding than a filter reaches
    ((1, 34, 12, 20), (64, 34, 1, 3), (1, 2), ((3, 0), (100, 5)), 1, 1),
    ((2, 32, 9, 9), (32, 16, 3, 3), 1, 0, 2, 2),
    ((2, 64, 12, 32), (64, 64, 1, 1), 2, 0, 1, 1),  # a tile is two whole rows of outputs
]


def case(rng, geometry):
    """(geometry, x (N, H, W, C), weight, bias, grad_output (N, OH, OW, OC)), of float32."""
    x, weight, *options = geometry
    g = conv2d(x, weight, *options)
    shapes = (g.N, g.H, g.W, g.IC), weight, (g.OC,), (g.N, g.OH, g.OW, g.OC)
    return g, *(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def assert_near(result, expected, magnitude, roundings):
    """Errors are so many roundings of the sum of the terms' magnitudes, however many terms there are."""
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    assert np.all(abs(result - expected) <= roundings * np.finfo(np.float32).eps * magnitude)


@needs_amx
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_passes_are_the_textbooks(rng, geometry):
    g, x, weight, bias, grad_output = case(rng, geometry)
    options = geometry[2:]

    def textbook(x, weight, bias, grad_output):
        x, grad_output = (array.astype(np.float64).transpose(0, 3, 1, 2) for array in (x, grad_output))
        weight, bias = weight.astype(np.float64), bias.astype(np.float64)
        y = F.conv2d(x, weight, bias, *options, algorithm="loops")
        grad_input, grad_weight, _ = F.conv2d_backward(grad_output, x, weight, *options, algorithm="loops")
        return y.transpose(0, 2, 3, 1), grad_input.transpose(0, 2, 3, 1), grad_weight

    expected = textbook(x, weight, bias, grad_output)
    magnitudes = textbook(*(abs(array) for array in (x, weight, bias, grad_output)))
    results = (
        conv_amx.forward(g, x, weight, bias),
        conv_amx.backward_input(g, grad_output, weight),
        conv_amx.backward_weight(g, x, grad_output),
    )
    for result, *wanted in zip(results, expected, magnitudes, strict=True):
        assert_near(result, *wanted, 2 if min(g.IC, g.OC) // g.groups >= 32 else 4)  # steps of few terms are rounded as often


@needs_amx
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[0][1] // g[5] > amx.DEPTH or g[1][0] // g[5] > amx.DEPTH])
@pytest.mark.parametrize("steps", [1, 27])  # slices of a block each; of as many as have 27 steps, the last of 300 channels has fewer
def test_slices_of_a_sum_have_its_bits(rng, monkeypatch, geometry, steps):
    g, x, weight, bias, grad_output = case(rng, geometry)

    def passes(long):
        monkeypatch.setattr(conv_amx, "LONG", long)
        monkeypatch.setattr(conv_amx, "STEPS", steps)
        for plan in (conv_amx.forward_plan, conv_amx.input_plans):
            plan.cache_clear()
        plans = conv_amx.forward_plan(conv_amx._flat(g)), *conv_amx.input_plans(conv_amx._flat(g))
        slices = [-(-plan.blocks[2] // plan.layout[0]) for plan in plans]
        return slices, conv_amx.forward(g, x, weight, bias), conv_amx.backward_input(g, grad_output, weight)

    try:
        whole, *expected = passes(1 << 40)
        slices, *results = passes(0)
    finally:
        for plan in (conv_amx.forward_plan, conv_amx.input_plans):
            plan.cache_clear()
    assert max(whole) == 1
    assert steps > 1 or max(slices) > 1
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@needs_amx
def test_a_product_is_as_exact_as_float32s(rng):
    """Each of the six products of thirds counts: without the smallest ones errors are 30 times as large."""
    x, weight = (rng.standard_normal(count).astype(np.float32) for count in (4096, 32))
    g = conv2d((1, 32, 64, 64), (32, 32, 1, 1))
    images, filters = np.zeros((1, 64, 64, 32), np.float32), np.zeros((32, 32, 1, 1), np.float32)
    images[..., 0], filters[:, 0, 0, 0] = x.reshape(1, 64, 64), weight
    y = conv_amx.forward(g, images, filters, np.zeros(32, np.float32)).reshape(4096, 32)
    exact = x[:, None].astype(np.float64) * weight
    assert np.all(abs(y - exact) <= np.finfo(np.float32).eps * abs(exact))


@needs_amx
def test_numbers_go_through_unchanged(rng):
    """Times 1 every number is itself, to the last bit: the three parts are all of it."""
    x = (rng.standard_normal((1, 40, 40, 64)) * 10.0 ** rng.integers(-25, 25, (1, 40, 40, 64))).astype(np.float32)
    x[0, 0, 0, :8] = 0.0, 1.0, -1.0, 1 + 2.0**-23, 3 - 2.0**-22, 3e38, -3e38, 2.0**-100
    g = conv2d((1, 64, 40, 40), (64, 64, 1, 1))
    one = np.eye(64, dtype=np.float32)[:, :, None, None]
    np.testing.assert_array_equal(conv_amx.forward(g, x, one, np.zeros(64, np.float32)), x)
    np.testing.assert_array_equal(conv_amx.backward_input(g, x, one), x)


@needs_amx
@pytest.mark.parametrize("channels", [50, 64])
def test_what_is_not_finite_stays_where_it_is_seen(rng, channels):
    g, x, weight, bias, _ = case(rng, ((2, channels, 10, 10), (64, channels, 3, 3), 1, 1, 1, 1))
    expected = conv_amx.forward(g, x, weight, bias)
    for value in (np.nan, np.inf, -np.inf):
        x[0, 4, 5, 7] = value
        y = conv_amx.forward(g, x, weight, bias)
        assert np.isnan(y[0, 3:6, 4:7]).all()
        y[0, 3:6, 4:7] = expected[0, 3:6, 4:7]
        np.testing.assert_array_equal(y, expected)


@needs_amx
@pytest.mark.parametrize("which", ["input", "gradient"])
def test_weight_gradients_of_what_is_not_finite(rng, which):
    """NaN goes to all taps of its channel, those that do not see its pixel too, and to no other channel."""
    g, x, _, _, grad_output = case(rng, ((2, 40, 10, 10), (36, 40, 3, 3), 1, 1, 1, 1))
    expected = conv_amx.backward_weight(g, x, grad_output)
    array, seen = (x, (slice(None), 7)) if which == "input" else (grad_output, (7,))
    array[1, 9, 9, 7] = np.nan  # a corner
    grad_weight = conv_amx.backward_weight(g, x, grad_output)
    assert np.isnan(grad_weight[seen]).all()
    grad_weight[seen] = expected[seen]
    np.testing.assert_array_equal(grad_weight, expected)


@needs_amx
def test_plans_of_large_filters_end():
    """A job's share is halved until its sums stay in the second cache, or it is as small as a tile."""
    *_, share, own = conv_amx._weight_plan(conv2d((4, 192, 7, 7), (512, 192, 5, 5), 2, 2))
    assert share == 2
    assert 2 * own * 25 * amx.TALL * amx.COLUMNS * 4 <= conv_amx.SUMS_BYTES
    *_, share, own = conv_amx._weight_plan(conv2d((4, 192, 40, 40), (512, 192, 31, 31), 1, 15))
    assert (share, own) == (2, 1)


@needs_amx
@pytest.mark.parametrize("geometry", [GEOMETRIES[k] for k in (1, 5, 9, 18, 20)])
def test_the_number_of_threads_does_not_matter(rng, geometry):
    g, x, weight, bias, grad_output = case(rng, geometry)

    def passes():
        return [
            conv_amx.forward(g, x, weight, bias),
            conv_amx.backward_input(g, grad_output, weight),
            conv_amx.backward_weight(g, x, grad_output),
        ]

    threads = fastconv.get_num_threads()
    expected = passes()
    fastconv.set_num_threads(1)
    try:
        for one, many in zip(passes(), expected, strict=True):
            np.testing.assert_array_equal(one, many)
    finally:
        fastconv.set_num_threads(threads)


LARGE = (16, 128, 28, 28), (128, 128, 3, 3)
"""Of enough work for matrix registers, but to Winograd's algorithm less."""


@pytest.fixture
def allowed(monkeypatch):
    """Matrix registers, as far as rules are concerned."""
    monkeypatch.setattr(conv_amx, "_allowed", True)


def test_what_takes_them(allowed):
    def module(stride, wanted, algorithm="auto", dtype=FLOAT32):
        return conv.module_of(algorithm, conv2d(*LARGE, stride, 1), dtype, conv.get_allowed(), wanted)

    def takes(x, weight, wanted="forward", dtype=FLOAT32, **options):
        return conv_amx.takes(conv2d(x, weight, **options), dtype, wanted)

    assert module(1, "forward") is conv_winograd
    assert module(2, "forward") is module(2, "input") is conv_direct
    assert module(2, "forward", "winograd") is conv_winograd
    assert takes(*LARGE, padding=1)
    assert takes(*LARGE, padding=1, wanted="input")
    assert takes(*LARGE, padding=1, wanted="weight")
    assert not takes(*LARGE, padding=1, stride=2, wanted="weight")
    assert not takes((256, 128, 7, 7), LARGE[1], padding=1, wanted="weight")  # a quarter of the pixels would be zeros
    assert not takes((16, 136, 28, 28), (136, 136, 3, 3), padding=1, wanted="weight")  # more of the channels
    assert not takes((1, 64, 200, 200), (64, 64, 3, 3), padding=60, dilation=60, wanted="weight")  # much is split for two rows
    assert takes((16, 256, 28, 28), (256, 256, 1, 1), wanted="weight")
    assert not takes((16, 256, 56, 56), (256, 256, 1, 1), stride=2, padding=1, wanted="weight")
    assert not takes(*LARGE, padding=1, dtype=np.dtype(np.float64))
    assert not takes((16, 32, 64, 64), (128, 32, 3, 3))  # few channels
    assert not takes((1, 128, 14, 14), (128, 128, 3, 3))  # little work
    assert not takes((16, 128, 56, 56), (128, 16, 3, 3), groups=8)


def test_they_can_be_forbidden(rng):
    assert fastconv.get_amx() == amx.AVAILABLE
    x, weight = (rng.standard_normal(shape, np.float32) for shape in ((16, 128, 28, 28), (128, 128, 1, 1)))
    layer = nn.Conv2d(128, 128, 1, bias=False)
    layer.weight.data = weight
    first = layer(x)
    try:
        fastconv.set_amx(False)
        assert fastconv.get_amx() is False
        without = layer(x)
        fastconv.set_amx(True)
        assert fastconv.get_amx() == amx.AVAILABLE  # elsewhere there is nothing to allow
        again = layer(x)
    finally:
        fastconv.set_amx(True)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, without, rtol=0, atol=1e-5 * abs(without).max())
    assert np.array_equal(first, without) != amx.AVAILABLE
    with pytest.raises(ArgumentTypeError, match="allowed must be True or False, got 1"):
        fastconv.set_amx(1)


@pytest.mark.parametrize(("name", "value", "then"), [("FASTCONV_AMX", "0", amx.AVAILABLE), ("NUMBA_CPU_FEATURES", "+avx2,+fma", False)])
def test_the_environment_forbids_them(name, value, then):
    """Then `set_amx` allows them again, but not where code is generated for a processor that does not have them."""
    code = "import fastconv; print(fastconv.get_amx()); fastconv.set_amx(True); print(fastconv.get_amx())"
    result = subprocess.run([sys.executable, "-c", code], env={**os.environ, name: value}, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", str(then)]


def test_geometries_of_plans_are_made_once():
    """Plans are found by them again."""
    for weight, stride in (((48, 64, 1, 1), 1), ((48, 64, 1, 1), 2)):
        g = conv_amx._flat(conv2d((3, 64, 8, 8), weight, stride))
        assert conv_amx._flat(conv2d((3, 64, 8, 8), weight, stride)) is g
        assert conv_amx._seen(g, 48, 64) is conv_amx._seen(g, 48, 64)


@needs_amx
def test_maxima_are_those_of_the_convolution(rng):
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 64, 42, 43), (64, 64, 3, 3), (64,)))
    y, _, _ = F.conv.conv2d_relu_max_pool2d(x, weight, bias, 1, 1, 1, 1, "direct")
    assert conv_amx.takes(conv2d(x.shape, weight.shape, 1, 1), FLOAT32, "forward")
    np.testing.assert_array_equal(y, F.max_pool2d(F.relu(F.conv2d(x, weight, bias, 1, 1, algorithm="direct")), 2))

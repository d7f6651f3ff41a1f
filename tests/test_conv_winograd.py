"""Winograd's algorithm: error bounds of every pass against float64, shapes, cuts, bits, and the ways to forbid it."""

import itertools

import numpy as np
import pytest
from checks import assert_same_bits

import fastconv
from fastconv import functional as F
from fastconv import nn, reference, shapes
from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional import conv, conv_direct, conv_winograd, winograd_cost, winograd_geometry
from fastconv.functional.conv import conv2d_relu_max_pool2d
from fastconv.kernels import winograd_rows, winograd_strided
from fastconv.kernels.processor import ADDERS, VECTOR_BYTES

EPS = {np.float32: 2.0**-24, np.float64: 2.0**-53}
GROWTH = 20  # of the error by the transforms, in terms of the bound of a plain sum; docs/algorithms.md

# input (N, IC, H, W), OC, size of the filter, then options
SHAPES = {
    "whole tiles": ((2, 8, 6, 10), 16, 3, {}),
    "tiles over the border": ((3, 17, 9, 11), 21, 3, {"padding": 1}),
    "one pixel": ((3, 5, 1, 1), 3, 3, {"padding": 1}),
    "one channel": ((2, 1, 12, 7), 1, 3, {"padding": 1}),
    "as small as the filter": ((2, 3, 3, 3), 5, 3, {}),
    "asymmetric": ((2, 9, 8, 7), 33, 3, {"padding": ((0, 2), (1, 3))}),
    "padding beyond the filter": ((2, 6, 5, 4), 9, 3, {"padding": 5}),
    "same": ((1, 30, 13, 14), 40, 3, {"padding": "same"}),
    "many channels": ((3, 256, 7, 7), 72, 3, {"padding": 1}),
    "many tiles": ((3, 8, 40, 41), 8, 3, {"padding": 1}),
    "large filters": ((5, 65, 9, 8), 80, 3, {"padding": 1}),
    "dilated": ((2, 9, 17, 15), 20, 3, {"padding": 2, "dilation": 2}),
    "dilated unevenly": ((2, 17, 11, 16), 7, 3, {"padding": ((0, 3), (2, 1)), "dilation": (1, 3)}),
    "dilated beyond the image": ((1, 3, 5, 6), 4, 3, {"padding": 7, "dilation": (7, 6)}),
    "five": ((2, 9, 12, 13), 20, 5, {"padding": 2}),
    "five, with a tail": ((3, 18, 9, 7), 33, 5, {"padding": ((0, 3), (4, 1))}),
    "five, as small as the filter": ((2, 3, 5, 5), 17, 5, {}),
    "five, dilated": ((2, 17, 15, 18), 7, 5, {"padding": 3, "dilation": (2, 1)}),
    "five, filters larger than tiles": ((2, 270, 5, 3), 261, 5, {"padding": 2}),
    "groups": ((2, 10, 9, 8), 42, 3, {"padding": 1, "groups": 2}),
    "groups of five, dilated": ((2, 51, 12, 11), 18, 5, {"padding": 2, "dilation": (1, 2), "groups": 3}),
    "groups of large filters": ((3, 140, 9, 7), 130, 3, {"padding": 1, "groups": 2}),
    "groups, filters larger than tiles": ((1, 540, 5, 9), 522, 3, {"padding": 1, "groups": 2}),
    "filters larger than tiles": ((2, 270, 5, 9), 261, 3, {"padding": 1}),
    "stride 2, whole tiles": ((2, 8, 9, 17), 16, 3, {"stride": 2}),
    "stride 2, tiles over the border": ((3, 17, 16, 19), 21, 3, {"stride": 2, "padding": 1}),
    "stride 2, one pixel": ((3, 5, 1, 1), 3, 3, {"stride": 2, "padding": 1}),
    "stride 2, asymmetric": ((2, 9, 13, 14), 33, 3, {"stride": 2, "padding": ((0, 2), (1, 3))}),
    "stride 2, even above and odd left": ((2, 30, 20, 18), 17, 3, {"stride": 2, "padding": ((2, 1), (1, 0))}),
    "stride 2, padding beyond the filter": ((2, 6, 5, 4), 9, 3, {"stride": 2, "padding": 5}),
    "stride 2, one row": ((2, 4, 2, 9), 8, 3, {"stride": 2, "padding": 1}),
    "stride 2, one column": ((2, 19, 7, 3), 18, 3, {"stride": 2}),
    "stride 2, as small as the filter": ((2, 3, 3, 3), 5, 3, {"stride": 2}),
    "stride 2, rows that no filter reaches": ((2, 18, 10, 12), 20, 3, {"stride": 2}),
    "stride 2, many tiles": ((5, 33, 40, 41), 34, 3, {"stride": 2, "padding": 1}),
    "stride 2, large filters": ((5, 140, 17, 15), 150, 3, {"stride": 2, "padding": 1}),
    "stride 2, filters larger than tiles": ((2, 270, 9, 17), 261, 3, {"stride": 2, "padding": 1}),
    "stride 2, groups": ((2, 10, 9, 16), 42, 3, {"stride": 2, "padding": 1, "groups": 2}),
    "stride 2, groups, filters larger than tiles": ((1, 540, 9, 12), 522, 3, {"stride": 2, "padding": 1, "groups": 2}),
    "four": ((3, 17, 13, 11), 21, 4, {"padding": 1}),
    "four, as small as the filter": ((2, 3, 4, 4), 17, 4, {}),
    "four, asymmetric and dilated": ((2, 9, 17, 18), 33, 4, {"padding": ((0, 3), (4, 1)), "dilation": (2, 1)}),
    "four, groups": ((2, 34, 9, 8), 42, 4, {"padding": 2, "groups": 2}),
    "four, filters larger than tiles": ((2, 270, 5, 9), 261, 4, {"padding": 2}),
    "deep, eleven with stride 4": ((3, 3, 31, 35), 21, 11, {"stride": 4, "padding": 2}),
    "deep, rows that no filter reaches": ((2, 3, 34, 35), 9, 11, {"stride": 4}),
    "deep, seven with stride 2": ((2, 3, 30, 27), 18, 7, {"stride": 2, "padding": 3}),
    "deep, five with stride 2": ((3, 17, 13, 14), 9, 5, {"stride": 2, "padding": 2}),
    "deep, ten with stride 2": ((2, 4, 23, 19), 17, (9, 10), {"stride": 2, "padding": 1}),
    "deep, uneven and asymmetric": ((2, 6, 13, 20), 9, (6, 9), {"stride": (2, 3), "padding": ((0, 3), (5, 1))}),
    "deep, along one axis": ((1, 4, 20, 9), 3, (5, 3), {"stride": (2, 1), "padding": 1}),
    "deep, padding beyond the filter": ((2, 2, 12, 11), 4, 9, {"stride": 3, "padding": 20}),
    "deep, filters larger than tiles": ((2, 68, 13, 14), 261, 5, {"stride": 2, "padding": 2}),
}


def extents(size):
    """(KH, KW) of a filter."""
    return size if isinstance(size, tuple) else (size, size)


def magnitudes(x, w, grad_output, **options):
    """What each pass would give if nothing cancelled, and how many terms it sums."""
    sizes = [np.abs(a).astype(np.float64) for a in (x, w, grad_output)]
    y = reference.conv2d(sizes[0], sizes[1], **options)
    gradients = reference.conv2d_backward(sizes[2], sizes[0], sizes[1], **options)
    taps = w.shape[2] * w.shape[3]
    groups = options.get("groups", 1)
    terms = taps * w.shape[1], taps * w.shape[0] // groups, grad_output.size // w.shape[0]
    return [(a.max(), n) for a, n in zip((y, *gradients[:2]), terms, strict=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_every_pass_within_its_bound(name, dtype, rng):
    shape, OC, size, options = SHAPES[name]
    IC = shape[1] // options.get("groups", 1)
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal((OC, IC, *extents(size))).astype(dtype)
    bias = rng.standard_normal(OC).astype(dtype)
    x64, w64 = x.astype(np.float64), w.astype(np.float64)
    expected = reference.conv2d(x64, w64, bias.astype(np.float64), **options)
    grad_output = rng.standard_normal(expected.shape).astype(dtype)
    gradients = reference.conv2d_backward(grad_output.astype(np.float64), x64, w64, **options)
    results = (
        F.conv2d(x, w, bias, **options, algorithm="winograd"),
        *F.conv2d_backward(grad_output, x, w, **options, algorithm="winograd"),
    )
    bounds = magnitudes(x, w, grad_output, **options)
    for what, result, wanted, (largest, terms) in zip(
        ("output", "grad_input", "grad_weight"), results, (expected, *gradients), bounds, strict=False
    ):
        assert result.dtype == dtype
        assert result.shape == wanted.shape
        error = np.abs(result - wanted).max()
        assert error <= GROWTH * np.sqrt(terms) * EPS[dtype] * largest, f"{what}: {error / (np.sqrt(terms) * EPS[dtype] * largest):.1f}"


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "name",
    [
        "tiles over the border",
        "large filters",
        "many tiles",
        "filters larger than tiles",
        "dilated",
        "five",
        "groups",
        "stride 2, many tiles",
        "stride 2, large filters",
        "stride 2, filters larger than tiles",
        "four",
        "deep, eleven with stride 4",
    ],
)
def test_the_same_bits_on_any_number_of_threads(name, threads, rng):
    shape, OC, size, options = SHAPES[name]
    IC = shape[1] // options.get("groups", 1)
    images = 5 if "filters larger than tiles" in name else 17  # no more tiles than FEW
    x, w = (
        rng.standard_normal((images, *shape[1:]), np.float32),
        rng.standard_normal((OC, IC, *extents(size)), np.float32),
    )
    results = []
    for n in (2, threads):
        fastconv.set_num_threads(n)
        y = F.conv2d(x, w, **options, algorithm="winograd")
        results.append([y, *F.conv2d_backward(y, x, w, **options, algorithm="winograd")])
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("cut", [(1, 2, 2), (3, 4, 2), (4, 3, 3), (3, 10, 6), (40, 40, 40)])
@pytest.mark.parametrize("stride", [1, 2])
def test_how_tiles_are_cut_changes_no_bit_of_forward(cut, stride, monkeypatch, rng):
    x, w = rng.standard_normal((10, 19, 9, 9), np.float32), rng.standard_normal((70, 19, 3, 3), np.float32)
    expected = F.conv2d(x, w, padding=1, stride=stride, algorithm="winograd")
    monkeypatch.setattr(conv_winograd, "_cut", lambda *arguments: cut)
    assert_same_bits(F.conv2d(x, w, padding=1, stride=stride, algorithm="winograd"), expected)


def test_large_filters_of_few_tiles_are_shared_in_halves():
    """Of equal size, or nearly: a thread of two reads those that it has transformed."""

    def shares(T, IC, OC, itemsize=4):
        vectors = OC * itemsize // VECTOR_BYTES
        _, share, _ = conv_winograd._cut(T, 36, IC, vectors, itemsize)
        return [min(share, vectors - first) for first in range(0, vectors, share)]

    lanes = VECTOR_BYTES // 4
    assert shares(512, 256, 256) == [128 // lanes] * 2
    assert shares(512, 256, 65 * lanes) == [33, 32]
    assert shares(512, 256, 256, 8) == [256 // lanes] * 2
    assert len(shares(513, 256, 256)) == 1
    assert len(shares(512, 64, 256)) == 1


@pytest.mark.parametrize("OC", [100, 261])
@pytest.mark.parametrize("stride", [1, 2])
def test_few_tiles_or_many_change_no_bit_of_forward(stride, OC, monkeypatch, rng, kernels_called):
    x, w = rng.standard_normal((2, 270, 5 * stride, 9 * stride), np.float32), rng.standard_normal((OC, 270, 3, 3), np.float32)
    options = {"padding": 1, "stride": stride, "algorithm": "winograd"}
    results = []
    for few in (0, 12):
        monkeypatch.setattr(winograd_geometry, "MOST_SHARED", few)
        kernels_called.clear()
        y = F.conv2d(x, w, **options)
        assert ("conv_winograd_few.convolve_few" in kernels_called) == (few > 0)
        results.append((y, F.conv2d_backward(y, x, w, **options, output_mask=(True, False, False))[0]))
    for one, other in zip(*results, strict=True):
        assert_same_bits(one, other)


def test_when_jobs_share_the_filters():
    """More tiles of more output channels: of 96 with vectors of 16, up to 32; never of 64; and of no more than 200."""
    lanes = VECTOR_BYTES // 4

    def most(vectors):
        return max((T for T in range(300) if winograd_geometry.filters_shared(T, vectors * lanes, 4)), default=0)

    assert [most(vectors) for vectors in (2, 4, 5, 6, 7, 8, 12, 16, 64)] == [0, 0, 0, 32, 32, 64, 128, 192, 200]
    assert not winograd_geometry.filters_shared(0, 512, 4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("cut", [(1, 1, 16, 1), (1, 40, 32, 2), (3, 5, 16, 1), (7, 2, 32, 2)])
def test_how_a_weight_gradient_is_cut(cut, stride, monkeypatch, rng):
    splits, block, depth, wide = cut
    lanes = VECTOR_BYTES // 4
    x, w = rng.standard_normal((7, 39, 9, 9), np.float32), np.zeros((41, 39, 3, 3), np.float32)
    options = {"padding": 1, "stride": stride}
    grad_output = rng.standard_normal(F.conv2d(x, w, **options).shape, np.float32)
    expected = reference.conv2d_backward_weight(grad_output.astype(np.float64), x.astype(np.float64), w.shape, **options)
    monkeypatch.setattr(conv_winograd, "_weight_cut", lambda *arguments: (splits, block, depth * lanes // 16, wide))
    result = F.conv2d_backward(grad_output, x, w, **options, algorithm="winograd", output_mask=(False, True, False))[1]
    assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_a_weight_gradient_change_no_bit(stride, monkeypatch, rng):
    lanes = VECTOR_BYTES // 4
    x, w = rng.standard_normal((7, 39, 9, 9), np.float32), np.zeros((70, 39, 3, 3), np.float32)
    options = {"padding": 1, "stride": stride}
    grad_output = rng.standard_normal(F.conv2d(x, w, **options).shape, np.float32)
    results = []
    for block, depth, wide in ((40, 48, 5), (3, 48, 5), (40, 16, 5), (7, 32, 2)):
        monkeypatch.setattr(conv_winograd, "_weight_cut", lambda *arguments, cut=(2, block, -(-depth // lanes) * lanes, wide): cut)
        results.append(F.conv2d_backward(grad_output, x, w, **options, algorithm="winograd", output_mask=(False, True, False))[1])
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_more_threads_have_more_jobs_for_the_weight():
    """Of fewer channels, but as many splits, on which the bits depend."""

    def jobs(T, IC, OC, threads):
        splits, _, depth, wide = conv_winograd._weight_cut(T, 36, IC, OC, 4, threads)
        return splits, splits * -(-IC // depth) * -(-OC // (wide * VECTOR_BYTES // 4))

    assert jobs(256, 256, 256, 2) == (1, 2)
    assert jobs(256, 256, 256, 4) == (1, 4)
    assert jobs(256, 256, 256, 8) == (1, 8)
    assert jobs(256, 256, 256, 128) == (1, 8)
    assert jobs(1 << 20, 256, 256, 16) == (4, 16)
    assert jobs(1000, 512, 512, 2) == (1, 8)


@pytest.mark.parametrize(("IC", "OC"), [(128, 128), (17, 40), (100, 8), (8, 8)])
def test_few_tiles_are_two_jobs(IC, OC):
    lanes = VECTOR_BYTES // 4
    splits, _, depth, wide = conv_winograd._weight_cut(20, 36, IC, OC, 4, 2)
    assert splits == 1
    assert -(-IC // depth) * -(-OC // (wide * lanes)) == (2 if max(IC, OC) > lanes else 1)


def test_large_batches_are_split_evenly():
    """For two threads and more, but not so often that the way back from the transform would count."""

    def splits(T, IC, OC, rows=36):
        return conv_winograd._weight_cut(T, rows, IC, OC, 4, 2)[0]

    assert splits(800, 16, 16) == 4
    assert splits(64 * 64, 16, 16) == 8
    assert splits(100, 128, 128) == 2
    assert splits(64, 640, 640) == 1
    assert splits(1000, 512, 512) == 1
    assert splits(1 << 20, 256, 256) == 4
    assert splits(0, 8, 8) == 1


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 1), (3, 2)])
def test_channels_of_neighbours_are_read_and_never_used(size, stride, rng):
    """Those of another group, of which a vector of six channels holds some."""
    options = {"padding": 1, "stride": stride, "groups": 2, "algorithm": "winograd"}
    x, w = rng.standard_normal((3, 12, 14, 14), np.float32), rng.standard_normal((12, 6, size, size), np.float32)
    grad_output, results = rng.standard_normal(F.conv2d(x, w, **options).shape, np.float32), []
    for other in (1.0, np.nan, np.inf):
        x[:, 6:] = grad_output[:, 6:] = other
        y = F.conv2d(x, w, **options)
        grad_input, grad_weight, _ = F.conv2d_backward(grad_output, x, w, **options)
        results.append((y[:, :6], grad_input[:, :6], grad_weight[:6]))
    for result in results[1:]:
        for one, expected in zip(result, results[0], strict=True):
            assert_same_bits(one, expected)


def test_transposed(rng):
    x, w = rng.standard_normal((2, 9, 7, 8)), rng.standard_normal((9, 12, 3, 3))
    expected = F.conv_transpose2d(x, w, padding=1, algorithm="direct")
    np.testing.assert_allclose(F.conv_transpose2d(x, w, padding=1, algorithm="winograd"), expected, atol=1e-11)
    gradients = [F.conv_transpose2d_backward(expected, x, w, padding=1, algorithm=a) for a in ("winograd", "direct")]
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize(("shape", "OC"), [((5, 6, 13, 14), 21), ((2, 33, 8, 8), 21), ((0, 6, 8, 8), 21), ((2, 5, 11, 6), 258)])
def test_maxima_behind_relu(shape, OC, size, rng):
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal((OC, shape[1], size, size), np.float32)
    bias = rng.standard_normal(OC, np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, bias, padding=1, algorithm="winograd")), 2)
    output, argmax, _ = conv2d_relu_max_pool2d(x, w, bias, 1, 1, 1, 1, algorithm="winograd")
    assert_same_bits(output, expected)
    assert np.array_equal(argmax.transpose(0, 3, 1, 2) == 4, output == 0)


@pytest.mark.parametrize(("size", "stride"), [(11, 4), (7, 2), (5, 2)])
def test_maxima_behind_relu_with_a_stride(size, stride, rng):
    x, w = rng.standard_normal((2, 5, 37, 38), np.float32), rng.standard_normal((21, 5, size, size), np.float32)
    bias = rng.standard_normal(21, np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, bias, stride=stride, padding=2, algorithm="winograd")), 2)
    output, argmax, _ = conv2d_relu_max_pool2d(x, w, bias, stride, 2, 1, 1, algorithm="winograd")
    assert_same_bits(output, expected)
    assert np.array_equal(argmax.transpose(0, 3, 1, 2) == 4, output == 0)


def test_maxima_behind_relu_with_groups(rng):
    x, w = rng.standard_normal((2, 6, 13, 14), np.float32), rng.standard_normal((40, 3, 3, 3), np.float32)
    bias = rng.standard_normal(40, np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, bias, padding=1, groups=2, algorithm="winograd")), 2)
    output, argmax, _ = conv2d_relu_max_pool2d(x, w, bias, 1, 1, 1, 2, algorithm="winograd")
    assert_same_bits(output, expected)
    assert np.array_equal(argmax.transpose(0, 3, 1, 2) == 4, output == 0)


def test_maxima_behind_relu_with_dilation(rng):
    x, w = rng.standard_normal((2, 6, 13, 14), np.float32), rng.standard_normal((9, 6, 3, 3), np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, padding=2, dilation=2, algorithm="winograd")), 2)
    output, argmax, _ = conv2d_relu_max_pool2d(x, w, None, 1, 2, 2, 1, algorithm="winograd")
    assert_same_bits(output, expected)
    assert np.array_equal(argmax.transpose(0, 3, 1, 2) == 4, output == 0)


@pytest.mark.parametrize("algorithm", ["winograd", "direct"])
def test_relu_in_the_same_pass(algorithm, rng):
    net = nn.Sequential(nn.Conv2d(6, 19, 3, padding=1, algorithm=algorithm), nn.ReLU())
    x = rng.standard_normal((3, 6, 9, 10), np.float32)
    x[0, 0, 0, 0] = np.nan
    expected = F.relu(net[0](x))
    assert_same_bits(net(x), expected)
    assert_same_bits(net[1].backward(expected), F.relu_backward(expected, expected))


def test_empty_batch(rng):
    x, w = np.zeros((0, 4, 6, 6), np.float32), rng.standard_normal((5, 4, 3, 3), np.float32)
    y = F.conv2d(x, w, algorithm="winograd")
    gradients = F.conv2d_backward(y, x, w, algorithm="winograd")
    assert y.shape == (0, 5, 4, 4)
    assert gradients[0].shape == x.shape
    assert not gradients[1].any()


@pytest.fixture(params=[False, True], ids=["multiply-adds", "adders"])
def matrices(request, monkeypatch):
    """The matrix of a one-dimensional transform, by its module, name and how many numbers it takes."""
    monkeypatch.setattr(winograd_rows, "ADDERS", request.param)
    helpers = {name: getattr(winograd_rows, name).py_func for name in ("zero_at_p_and_q", "zero_but_at", "at_both", "gradient_row")}
    transforms = {
        (module, name): value.py_func
        for module in (winograd_rows, winograd_strided)
        for name, value in vars(module).items()
        if hasattr(value, "py_func")
    }
    for module in (winograd_rows, winograd_strided):
        monkeypatch.setattr(module, "fma", lambda a, b, c: a * b + c)
        for name in helpers.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, helpers[name])
    return lambda module, name, size: np.array(transforms[module, name](*np.eye(size)))


@pytest.mark.parametrize(
    ("outputs", "taps", "few", "more"), [(4, 3, "", ""), (3, 4, "_of_three", "_of_four"), (2, 5, "_of_two", "_of_five")]
)
def test_transforms_are_those_of_cook_and_toom(outputs, taps, few, more, matrices):
    """The one-dimensional transforms, multiplied out, are the convolution: so many outputs by so many taps."""
    rows = {
        "B": ("input_row", 6),
        "G": (f"weight_row{more}", taps),
        "A": (f"gradient_row{few}", outputs),
        "A^T": (f"output_row{few}", 6),
        "G^T": (f"weight_gradient_row{more}", 6),
    }
    B, G, A, AT, GT = (matrices(winograd_rows, *row) for row in rows.values())
    assert np.allclose(AT, A.T)
    assert np.allclose(GT, G.T)
    for output in range(outputs):
        for tap in range(taps):
            for place in range(6):
                assert np.isclose((AT[output] * G[:, tap] * B[:, place]).sum(), place == output + tap, atol=1e-12)


def test_transforms_of_stride_2(matrices):
    """Multiplied out, those of the points are the convolution with the outer taps of every other input; the middle tap stays what it is."""
    rows = [("points_row", 5), ("weight_row_of_stride_2", 3), ("values_row", 4), ("outputs_row", 5), ("weight_gradient_row_of_stride_2", 6)]
    B, G, A, AT, GT = (matrices(winograd_strided, *row) for row in rows)
    assert np.allclose(AT, A.T)
    assert np.allclose(GT, G.T)
    assert np.array_equal(G[5], [0, 1, 0])
    assert not G[:5, 1].any()
    for output in range(4):
        for tap in (0, 2):
            for place in range(5):
                assert np.isclose((AT[output] * G[:5, tap] * B[:, place]).sum(), 2 * place == 2 * output + tap, atol=1e-12)


# --- choosing and forbidding ---------------------------------------------------------------------------------------------------


@pytest.fixture
def chosen(monkeypatch):
    """Names of the modules whose forward ran."""
    names = []
    for name, module in conv.ALGORITHMS.items():
        original = module.forward
        monkeypatch.setattr(module, "forward", lambda *a, name=name, original=original: names.append(name) or original(*a))
    return names


LARGE = (8, 64, 16, 16), (64, 64, 3, 3)


@pytest.mark.usefixtures("without_amx")
def test_auto_takes_it_where_it_pays(chosen, rng):
    x, w = (rng.standard_normal(shape, np.float32) for shape in LARGE)
    F.conv2d(x, w, padding=1)
    F.conv2d(x[:, :3], w[:, :3], padding=1)
    F.conv2d(rng.standard_normal((4, 256, 32, 32), np.float32), rng.standard_normal((256, 256, 3, 3), np.float32), padding=1, stride=2)
    F.conv2d(x, w, padding=1, stride=3)
    F.conv2d(x, w, padding=2, dilation=2)
    F.conv2d(x.astype(np.float64), w.astype(np.float64), padding=1)
    assert chosen == ["winograd", "direct", "winograd", "direct", "winograd", "direct"]


def test_when_the_weights_gradient_pays():
    def pays(N, IC, OC, size, filter_size=3, groups=1, stride=1):
        weight = OC, IC // groups, filter_size, filter_size
        return winograd_cost.pays(shapes.conv2d((N, IC, size, size), weight, stride, filter_size // 2, 1, groups), "weight")

    assert pays(256, 8, 32, 14)
    assert pays(64, 16, 32, 14, 5)
    assert pays(64, 6, 16, 14, 5) == (ADDERS or VECTOR_BYTES < 64)
    if ADDERS:  # transforms cost fewer multiply-adds
        assert pays(256, 8, 16, 14)
        assert pays(64, 8, 32, 14, 5)
        assert pays(64, 8, 8, 14) == (VECTOR_BYTES < 64)
    assert pays(64, 64, 64, 28)
    assert pays(8, 128, 128, 28, groups=4)
    assert pays(64, 16, 8, 14) == (VECTOR_BYTES < 64)  # half of a vector
    assert not pays(64, 1, 16, 28)
    assert pays(8, 128, 128, 28, groups=8)
    assert not pays(8, 128, 128, 28, groups=32)
    assert not pays(8, 64, 64, 28, groups=8)  # they have kernels of their own
    assert not pays(1, 512, 512, 4)
    assert pays(16, 256, 256, 56, stride=2)
    assert not pays(1, 512, 512, 8, stride=2)
    assert not pays(1, 256, 256, 16, groups=16, stride=2)  # each group is a call
    assert not pays(4, 512, 512, 28, groups=32, stride=2)


@pytest.mark.parametrize("wanted", ["forward", "input", "weight"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_costs_are_positive(groups, stride, wanted):
    """Also those of tiny geometries, with what their calls cost."""
    for N, channels, size in itertools.product((1, 8), (8, 32), (3, 8, 14)):
        g = shapes.conv2d((N, channels, size, size), (channels, channels // groups, 3, 3), stride, 1, 1, groups)
        assert winograd_cost._own(g, wanted) > 0
        assert winograd_cost._others(g, wanted) > 0


def test_it_can_be_forbidden(chosen, rng):
    x, w = (rng.standard_normal(shape, np.float32) for shape in LARGE)
    layer = nn.Conv2d(64, 64, 3, padding=1, algorithm="direct")
    layer(x)
    F.conv2d(x, w, padding=1, algorithm="direct")
    assert fastconv.get_winograd() is True
    fastconv.set_winograd(False)
    try:
        assert fastconv.get_winograd() is False
        F.conv2d(x, w, padding=1)
        F.conv2d(x, w, padding=1, algorithm="winograd")  # asked for by name
    finally:
        fastconv.set_winograd(True)
    assert chosen == ["direct", "direct", "direct", "winograd"]
    with pytest.raises(ArgumentTypeError, match="allowed must be True or False, got 'no'"):
        fastconv.set_winograd("no")


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        ((4, 4, 3, 3), {"stride": 3}),
        ((4, 4, 3, 3), {"stride": (1, 2)}),
        ((4, 4, 3, 3), {"stride": 2, "dilation": 2}),
        ((4, 2, 5, 5), {"stride": 2, "groups": 2}),
        ((4, 4, 3, 3), {"stride": 2, "dilation": (1, 2)}),
        ((4, 4, 5, 7), {"stride": 2}),
        ((4, 4, 3, 1), {}),
        ((4, 4, 5, 3), {}),
        ((4, 4, 7, 7), {}),
    ],
)
def test_what_it_cannot_take(weight, options):
    with pytest.raises(ArgumentError, match='algorithm="winograd" does not fit: it takes filters of 3x3, 4x4 and 5x5 with stride 1'):
        F.conv2d(np.zeros((1, 4, 8, 8)), np.zeros(weight), **options, algorithm="winograd")


def test_the_rule_counts_what_is_left(rng):
    """Many channels and many tiles pay; one tile does not, as all filters would be transformed for it."""

    def pays(N, C, size, filter_size=3, groups=1, stride=1):
        weight = C, C // groups, filter_size, filter_size
        return winograd_cost.pays(shapes.conv2d((N, C, size, size), weight, stride, filter_size // 2, 1, groups), "forward")

    assert pays(64, 16, 32)
    assert pays(16, 512, 8)
    assert pays(1, 512, 14)
    assert not pays(1, 512, 4)
    assert not pays(1, 48, 7)
    assert not pays(64, 4, 32)
    assert pays(16, 32, 28, 5)
    assert not pays(64, 6, 28, 5)
    assert pays(8, 128, 28, groups=4)
    assert not pays(8, 128, 28, groups=32)
    assert winograd_cost.pays(shapes.conv2d((64, 96, 27, 27), (256, 48, 5, 5), 1, 2, 1, 2), "forward")
    assert pays(16, 128, 56, stride=2)
    assert not pays(16, 64, 28, stride=2)  # tiles beyond the border
    assert not pays(64, 16, 32, stride=2)
    assert not pays(1, 512, 8, stride=2)
    assert pays(64, 64, 8, stride=2) == ADDERS
    assert winograd_cost.pays(shapes.conv2d((16, 3, 224, 224), (64, 3, 11, 11), 4, 2, 1, 1), "forward")
    assert pays(8, 64, 28, 7, stride=2)
    assert not winograd_cost.pays(shapes.conv2d((64, 3, 32, 32), (16, 3, 5, 5), 2, 2, 1, 1), "forward")
    assert not pays(16, 256, 8, 5, stride=2)  # all the filters' taps, for one tile of an image
    assert not pays(64, 2048, 32)  # four times the memory of the filters
    assert conv_direct.unfit(shapes.conv2d((1, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1)) is None


def test_when_the_inputs_gradient_pays():
    def pays(N, IC, OC, size, filter_size=3, groups=1, stride=1, padding=None):
        weight, padding = (OC, IC // groups, filter_size, filter_size), filter_size // 2 if padding is None else padding
        return winograd_cost.pays(shapes.conv2d((N, IC, size, size), weight, stride, padding, 1, groups), "input")

    assert pays(64, 16, 16, 32)
    assert pays(64, 16, 32, 14, 5)
    assert pays(16, 512, 512, 8)
    assert pays(8, 128, 128, 28, groups=4)
    assert not pays(8, 128, 128, 28, groups=32)
    assert pays(16, 256, 256, 56, stride=2)
    assert not pays(1, 512, 512, 4)
    assert not pays(1, 48, 48, 7)
    assert not pays(64, 1, 16, 28)  # other ways of few channels take less
    assert not pays(64, 6, 16, 14, 5)
    assert pays(16, 64, 64, 28, 5, stride=2)
    assert not pays(64, 64, 64, 9, stride=2, padding=0)  # 4 tiles, of which 3 have little to do
    assert not pays(16, 256, 256, 8, 5, stride=2)


def test_gradients_behind_maxima():
    """Those of the convolution, three of four of which are 0, against lists of the others."""

    def pays(N, IC, OC, size, filter_size=3):
        return winograd_cost.pays_behind_maxima(shapes.conv2d((N, IC, size, size), (OC, IC, filter_size, filter_size), 1, 1, 1, 1))

    assert pays(64, 64, 64, 32) == (True, True)
    assert pays(64, 128, 128, 16) == (True, True)
    assert pays(64, 32, 64, 26) == (True, False)
    assert pays(64, 6, 16, 14, 5) == (False, False)
    assert pays(64, 4, 16, 28) == (False, False)

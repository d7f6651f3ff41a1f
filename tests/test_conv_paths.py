"""The special paths of the algorithm "direct", each against the reference on whole numbers, and each really taken."""

import itertools
import math

import numpy as np
import pytest
from checks import assert_same_bits, small_integers

from fastconv import functional as F
from fastconv import reference, set_num_threads, set_winograd, shapes
from fastconv.errors import ArgumentError
from fastconv.functional import conv_direct, conv_few, conv_few_inputs, conv_im2col, conv_lanes, conv_pooled, conv_rows_weight, conv_tiles
from fastconv.functional.conv import conv2d_relu_max_pool2d, conv2d_relu_max_pool2d_backward
from fastconv.functional.linear import PARTS
from fastconv.kernels import simd, strided, tiles
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.row_tile import MOST_TAPS
from fastconv.memory import empty

# input (N, IC, H, W), weight (OC, ICG, KH, KW), options; kernels that must run in forward, input and weight gradient ("" any)
IMAGES, ROWS, LANES = "conv_images.convolve", "conv_direct.convolve", "conv_lanes.convolve"
FOUR, DEPTHWISE, DEPTHWISE_WEIGHT = "conv_depthwise.convolve_by_four", "conv_depthwise.convolve", "conv_depthwise_weight.backward_weight"
FEW_INPUT, FEW_WEIGHT, WEIGHT = "conv_few.backward_input", "conv_few.backward_weight", "conv_direct_weight.backward_weight"
WEIGHT_ROWS = "conv_rows_weight.backward_weight" if MOST_TAPS else WEIGHT
LANES_WEIGHT, CLEARED = "conv_lanes_weight.backward_weight", "strided.clear_unseen"
PATCHES, PATCHES_INPUT, PRODUCT, PRODUCT_WEIGHT = (
    "conv_im2col.im2col",
    "conv_im2col.col2im",
    "dense.product",
    "dense_weight.product_over_rows",
)
CASES = {
    "small images": ((27, 5, 5, 5), (17, 5, 3, 3), {"padding": 1}, (IMAGES, "", FEW_WEIGHT)),
    "8 small images": ((8, 33, 5, 5), (100, 33, 3, 3), {"padding": 1}, (IMAGES, ROWS, WEIGHT_ROWS)),
    "few small images": ((8, 5, 8, 8), (9, 5, 3, 3), {"padding": 1}, (ROWS, "", FEW_WEIGHT)),
    "7 small images": ((7, 33, 7, 7), (40, 33, 3, 3), {"padding": 1}, (ROWS, ROWS, WEIGHT_ROWS)),
    "small images without a border": ((27, 34, 7, 7), (40, 34, 3, 3), {}, (ROWS, IMAGES, WEIGHT_ROWS)),
    "small images in groups": ((27, 12, 6, 4), (21, 4, 3, 2), {"padding": 1, "groups": 3}, (IMAGES, ROWS, WEIGHT)),
    "small images in groups, rows": ((27, 12, 6, 7), (21, 4, 3, 2), {"padding": (1, 0), "groups": 3}, (ROWS, IMAGES, WEIGHT)),
    "small images strided": ((27, 6, 9, 11), (18, 6, 3, 3), {"stride": (2, 3), "padding": 2}, (IMAGES, "", FEW_WEIGHT)),
    "small images asymmetric": ((27, 6, 9, 5), (18, 6, 2, 4), {"padding": ((1, 0), (3, 2))}, (IMAGES, "", FEW_WEIGHT)),
    "small images asymmetric, more channels": ((27, 17, 9, 5), (18, 17, 2, 4), {"padding": ((1, 0), (3, 2))}, (IMAGES, ROWS, WEIGHT_ROWS)),
    "small images with rows dilated": ((27, 6, 9, 9), (18, 6, 3, 3), {"dilation": (2, 1), "padding": 2}, (IMAGES, "", FEW_WEIGHT)),
    "small images dilated": ((27, 6, 9, 9), (18, 6, 3, 3), {"dilation": 2, "padding": 2}, (ROWS, ROWS, WEIGHT)),
    "filter larger than the image": ((27, 6, 3, 2), (18, 6, 5, 5), {"padding": 2}, (IMAGES, "", FEW_WEIGHT)),
    "filter larger than the image, more channels": ((27, 17, 3, 2), (18, 17, 5, 5), {"padding": 2}, (IMAGES, IMAGES, WEIGHT)),
    "padding beyond the filter": ((27, 6, 4, 4), (18, 6, 2, 2), {"padding": 4}, (IMAGES, "", FEW_WEIGHT)),
    "padding beyond the filter, more channels": ((27, 17, 4, 4), (18, 17, 2, 2), {"padding": 4}, (IMAGES, ROWS, WEIGHT_ROWS)),
    "one channel": ((3, 1, 20, 21), (6, 1, 5, 5), {"padding": 2}, (ROWS, "", FEW_WEIGHT)),
    "first layer of whole vectors": ((3, 3, 19, 18), (32, 3, 3, 3), {"padding": 1}, (ROWS, "", WEIGHT)),
    "first layer in groups": ((2, 6, 19, 23), (64, 3, 3, 3), {"stride": 2, "groups": 2}, (ROWS, "", WEIGHT)),
    "three channels": ((2, 3, 30, 33), (20, 3, 3, 3), {"padding": ((1, 0), (2, 1))}, (ROWS, "", WEIGHT)),
    "strided, phases of different extents": (
        (3, 37, 19, 22),
        (21, 37, 3, 4),
        {"stride": (2, 3), "padding": ((0, 1), (2, 0))},
        (ROWS, ROWS, WEIGHT),
    ),
    "strided, inputs that no window reads": ((3, 20, 17, 16), (33, 20, 2, 1), {"stride": (3, 2)}, (ROWS, ROWS, WEIGHT)),
    "strided, dilated, in groups": ((2, 40, 23, 20), (66, 20, 3, 3), {"stride": 2, "dilation": (2, 3), "groups": 2}, (ROWS, ROWS, WEIGHT)),
    "1x1 strided": ((3, 67, 8, 10), (130, 67, 1, 1), {"stride": (2, 3), "padding": (1, 0)}, (PATCHES, PATCHES_INPUT, PATCHES)),
    "1x1 strided, fewer filters": ((3, 37, 12, 13), (30, 37, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, WEIGHT)),
    "1x1 strided, crowded rows": ((2, 512, 8, 29), (40, 512, 1, 1), {"stride": (4, 2)}, (PRODUCT, CLEARED, PATCHES)),
    "1x1 strided, many pixels": ((5, 96, 28, 31), (130, 96, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, PRODUCT_WEIGHT)),
    "1x1 strided, a sum in parts": ((17, 100, 16, 16), (90, 100, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, PRODUCT_WEIGHT)),
    "1x1 strided, chunks": ((9, 400, 16, 26), (530, 400, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, PRODUCT_WEIGHT)),
    "1x1 strided, blocks of a part": ((10, 96, 20, 28), (2100, 96, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, PRODUCT_WEIGHT)),
    "1x1 strided, crowded gradient": ((2, 20, 8, 14), (1024, 20, 1, 1), {"stride": 2}, (PRODUCT, CLEARED, PRODUCT_WEIGHT)),
    "1x1 strided, one image": ((1, 20, 25, 29), (33, 20, 1, 1), {"stride": (2, 3)}, (PRODUCT, CLEARED, WEIGHT)),
    "strided far": ((2, 20, 30, 31), (20, 20, 3, 2), {"stride": (5, 4), "padding": (1, 3)}, (ROWS, ROWS, WEIGHT)),
    "small images strided, many channels": ((27, 40, 9, 7), (50, 40, 3, 3), {"stride": 2, "padding": 1}, (IMAGES, IMAGES, WEIGHT_ROWS)),
    "small images strided, wider": ((27, 40, 9, 18), (50, 40, 3, 3), {"stride": 2, "padding": 1}, (ROWS, ROWS, WEIGHT_ROWS)),
    "few channels strided": ((3, 2, 39, 35), (8, 2, 7, 7), {"stride": 2, "padding": 3}, (ROWS, "", "")),
    "few channels in bands of rows": ((9, 3, 61, 30), (8, 3, 7, 7), {"stride": (2, 3), "padding": 3}, ("", "", "")),
    "images as lanes": ((35, 3, 11, 6), (67, 3, 3, 4), {"padding": ((1, 0), (3, 2))}, (IMAGES, "", WEIGHT)),
    "images as lanes, one channel": ((13, 1, 20, 21), (6, 1, 5, 5), {}, (LANES, "", LANES_WEIGHT)),
    "images as lanes, many": ((45, 1, 12, 70), (6, 1, 5, 5), {"padding": ((2, 1), (3, 4))}, (LANES, "", LANES_WEIGHT)),
    "images as lanes, strided": ((35, 1, 13, 18), (4, 1, 5, 3), {"stride": (2, 1), "padding": (2, 0)}, (LANES, "", LANES_WEIGHT)),
    "images as lanes, one channel, rows dilated": (
        (16, 1, 15, 9),
        (3, 1, 3, 5),
        {"dilation": (3, 1), "padding": (4, 2)},
        (LANES, "", LANES_WEIGHT),
    ),
    "images as lanes, to few channels": (
        (33, 70, 13, 9),
        (3, 70, 5, 2),
        {"padding": (3, 0), "stride": (2, 3)},
        (LANES, IMAGES, FEW_WEIGHT),
    ),
    "images as lanes, rows dilated": ((9, 40, 7, 23), (5, 40, 3, 3), {"padding": 2, "dilation": (3, 1)}, (LANES, ROWS, FEW_WEIGHT)),
    "images as lanes, filter larger": ((17, 2, 3, 2), (7, 2, 5, 4), {"padding": 3}, (LANES, "", FEW_WEIGHT)),
    "weight gradient cut by both channels": ((2, 130, 9, 9), (147, 130, 3, 3), {"padding": 1}, (ROWS, ROWS, WEIGHT_ROWS)),
    "weight gradient cut by images": ((37, 17, 18, 18), (19, 17, 3, 3), {"padding": 1}, (ROWS, ROWS, WEIGHT_ROWS)),
    "weight gradient of one image": ((1, 48, 40, 19), (50, 48, 3, 3), {"padding": 1}, (ROWS, ROWS, WEIGHT_ROWS)),
    "weight gradient in groups": ((3, 66, 18, 18), (98, 33, 3, 3), {"groups": 2}, (ROWS, ROWS, WEIGHT_ROWS)),
    "dilated far": ((2, 70, 17, 19), (40, 70, 3, 3), {"dilation": 12, "padding": 12}, (ROWS, ROWS, WEIGHT)),
    "dilated far, strided": ((2, 9, 40, 43), (35, 9, 3, 4), {"dilation": (9, 5), "stride": (1, 2), "padding": (8, 7)}, (ROWS, "", WEIGHT)),
    "dilated far, in groups": ((1, 40, 33, 20), (68, 20, 4, 3), {"dilation": (6, 7), "padding": (9, 3), "groups": 2}, (ROWS, ROWS, WEIGHT)),
    "dilated beyond the image": ((2, 5, 9, 8), (18, 5, 3, 3), {"dilation": 9, "padding": 10}, (ROWS, ROWS, WEIGHT)),
    "long rows": ((1, 18, 3, 1100), (35, 18, 2, 5), {"stride": (1, 2), "padding": (0, 2)}, (ROWS, ROWS, WEIGHT)),
    "one long row dilated": ((2, 33, 1, 700), (20, 33, 1, 3), {"dilation": 5, "padding": (0, 5)}, (ROWS, ROWS, WEIGHT)),
    "one column": ((5, 20, 50, 1), (35, 20, 9, 1), {"padding": (4, 0)}, (ROWS, ROWS, WEIGHT_ROWS)),
    "one column, strided": ((4, 4, 61, 1), (9, 4, 6, 1), {"stride": (2, 3), "dilation": (3, 2), "padding": (5, 0)}, (ROWS, "", "")),
    "one column, in groups": ((2, 6, 40, 1), (9, 2, 5, 1), {"padding": (2, 0), "groups": 3}, ("", "", "")),
    "one column, depthwise": ((2, 19, 40, 1), (19, 1, 5, 1), {"padding": (2, 0), "groups": 19}, (DEPTHWISE, DEPTHWISE, DEPTHWISE_WEIGHT)),
    "depthwise by four": ((2, 37, 9, 12), (37, 1, 3, 3), {"padding": 1, "groups": 37}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise, many channels": ((1, 130, 6, 21), (130, 1, 3, 3), {"padding": 1, "groups": 130}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise, borders of two": ((2, 17, 7, 19), (17, 1, 3, 3), {"padding": 2, "groups": 17}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise, no border": ((2, 33, 8, 13), (33, 1, 3, 3), {"groups": 33}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise, a border to the right": (
        (1, 18, 9, 11),
        (18, 1, 3, 3),
        {"padding": ((1, 1), (0, 1)), "groups": 18},
        (FOUR, FOUR, DEPTHWISE_WEIGHT),
    ),
    "depthwise strided": ((2, 21, 12, 21), (21, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 21}, (FOUR, "", DEPTHWISE_WEIGHT)),
    "depthwise strided, wide borders": (
        (1, 17, 14, 21),
        (17, 1, 3, 3),
        {"stride": 2, "padding": ((2, 2), (2, 4)), "groups": 17},
        (FOUR, "", DEPTHWISE_WEIGHT),
    ),
    "depthwise dilated": ((1, 16, 13, 23), (16, 1, 3, 3), {"dilation": 2, "padding": 2, "groups": 16}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise narrow": ((2, 33, 7, 5), (33, 1, 3, 3), {"padding": 1, "groups": 33}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise narrow, strided": ((2, 40, 6, 6), (40, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 40}, (FOUR, "", DEPTHWISE_WEIGHT)),
    "depthwise narrow, dilated": ((2, 16, 9, 6), (16, 1, 3, 3), {"dilation": 2, "padding": 2, "groups": 16}, (DEPTHWISE, DEPTHWISE, "")),
    "depthwise, three vectors": ((2, 24, 7, 13), (24, 1, 3, 3), {"padding": 1, "groups": 24}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise strided, lines": ((2, 56, 9, 20), (56, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 56}, (FOUR, "", DEPTHWISE_WEIGHT)),
    "depthwise, far pixels": ((1, 1030, 4, 9), (1030, 1, 3, 3), {"padding": 1, "groups": 1030}, (FOUR, FOUR, DEPTHWISE_WEIGHT)),
    "depthwise strided, far pixels": ((1, 1027, 5, 11), (1027, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 1027}, (FOUR, "", "")),
    "depthwise wide": ((2, 37, 11, 15), (37, 1, 5, 5), {"padding": 2, "groups": 37}, (DEPTHWISE, DEPTHWISE, DEPTHWISE_WEIGHT)),
    "depthwise wide, blocks of rows": ((1, 17, 83, 61), (17, 1, 7, 9), {"padding": (3, 4), "groups": 17}, (DEPTHWISE, DEPTHWISE, "")),
    "depthwise wide, strided": ((2, 9, 44, 67), (9, 1, 5, 4), {"stride": 2, "padding": ((0, 3), (2, 1)), "groups": 9}, (DEPTHWISE, "", "")),
    "depthwise wide, dilated": ((2, 20, 38, 40), (20, 1, 5, 5), {"dilation": (7, 9), "padding": 15, "groups": 20}, (DEPTHWISE, "", "")),
    "depthwise wider than the image": ((2, 16, 3, 2), (16, 1, 7, 7), {"padding": 5, "groups": 16}, (DEPTHWISE, DEPTHWISE, "")),
    "weight gradient dilated": ((3, 40, 18, 18), (70, 40, 3, 3), {"dilation": 3}, (ROWS, ROWS, WEIGHT)),
}


@pytest.fixture(autouse=True)
def chosen_anew():
    """Ways are looked up once for each geometry: tests that change how they are chosen see their own, and leave none."""
    ways = conv_direct._forward_way, conv_direct._relu_max_way, conv_direct._input_way, conv_direct._weight_way
    for way in ways:
        way.cache_clear()
    yield
    for way in ways:
        way.cache_clear()


@pytest.mark.usefixtures("without_amx")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name, dtype, rng, kernels_called):
    input_shape, weight_shape, options, kernels = CASES[name]
    x, w = small_integers(rng, input_shape, dtype), small_integers(rng, weight_shape, dtype)
    bias = small_integers(rng, weight_shape[:1], dtype)
    expected = reference.conv2d(x, w, bias, **options)
    grad_output = small_integers(rng, expected.shape, dtype)
    gradients = reference.conv2d_backward(grad_output, x, w, **options)
    passes = [
        lambda: F.conv2d(x, w, bias, **options, algorithm="direct"),
        lambda: F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(True, False, False))[0],
        lambda: F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(False, True, False))[1],
    ]
    for compute, wanted, kernel in zip(passes, (expected, *gradients), kernels, strict=False):
        kernels_called.clear()
        result = compute()
        assert np.array_equal(result, wanted)
        # other choices than those of depthwise kernels count vectors, the table is for those of 16 numbers
        if VECTOR_BYTES // result.itemsize == 16 or name.startswith("depthwise"):
            assert kernel in kernels_called or not kernel
        set_num_threads(1)
        assert_same_bits(compute(), result)
        set_num_threads(2)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3][2] == WEIGHT_ROWS])
def test_weight_gradients_that_read_each_tap(name, rng, kernels_called, monkeypatch):
    """As processors that read faster do it, and all do with few channels."""
    monkeypatch.setattr(conv_rows_weight, "fits_weight", lambda *arguments: False)
    input_shape, weight_shape, options, _ = CASES[name]
    x, w = small_integers(rng, input_shape, np.float32), np.zeros(weight_shape, np.float32)
    grad_output = small_integers(rng, reference.conv2d(x, w, None, **options).shape, np.float32)
    result = F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(False, True, False))[1]
    assert np.array_equal(result, reference.conv2d_backward_weight(grad_output, x, w.shape, **options))
    assert WEIGHT in kernels_called or VECTOR_BYTES < 64  # the table is for vectors of 16 numbers


FEW = [name for name, (input, weight, options, _) in CASES.items() if input[1] * 4 <= conv_few_inputs.LINE and "groups" not in options]
INPUT_WAYS = {
    "channels": (None, {ROWS, IMAGES}),
    "rows of the filter": (conv_few, {FEW_INPUT}),
    "images": (conv_lanes, {LANES}),
    "product": (conv_im2col, {PATCHES_INPUT}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", INPUT_WAYS)
@pytest.mark.parametrize("name", FEW)
def test_every_way_of_few_input_channels(name, way, dtype, monkeypatch, rng, kernels_called):
    """What costs would choose does not matter here; a way that does not take the geometry must say so."""
    input_shape, weight_shape, options, _ = CASES[name]
    module, kernels = INPUT_WAYS[way]
    x, w = np.zeros(input_shape, dtype), small_integers(rng, weight_shape, dtype)
    grad_output = small_integers(rng, reference.conv2d(x, w, **options).shape, dtype)
    taken = []

    def forced(g, itemsize):
        fits = {conv_few: conv_few.fits_input(g), conv_lanes: conv_lanes.fits_input(g, itemsize)}.get(module, True)
        assert fits or g.DW > 1 or max(g.SH, g.SW) > 1
        taken.append(fits)
        return module if fits else None

    monkeypatch.setattr(conv_few_inputs, "way", forced)
    result = F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(True, False, False))[0]
    assert np.array_equal(result, reference.conv2d_backward(grad_output, x, w, **options)[0])
    (fits,) = taken
    assert kernels & kernels_called or not fits


@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "stride", "expected"),
    [
        ((128, 4, 20, 20), (5, 4, 3, 3), 1, conv_lanes),
        ((16, 8, 32, 32), (3, 8, 4, 4), 1, conv_lanes),
        ((8, 1, 112, 112), (32, 1, 9, 9), 2, conv_few),
        ((64, 3, 80, 5), (8, 3, 3, 3), 2, conv_few),
        ((2, 1, 56, 56), (384, 1, 7, 7), 2, conv_im2col),
        ((1, 8, 80, 80), (384, 8, 7, 7), 3, conv_im2col),
        ((1, 10, 64, 64), (10, 10, 3, 3), 1, None),
        ((1, 12, 40, 40), (32, 12, 3, 3), 2, None),
        ((64, 17, 20, 20), (4, 17, 3, 3), 1, None),
    ],
)
def test_way_of_few_input_channels(input_shape, weight_shape, stride, expected):
    """What costs choose, with vectors of any length."""
    assert conv_few_inputs.way(shapes.conv2d(input_shape, weight_shape, stride, 0, 1, 1), 4) is expected


def test_a_product_of_few_input_channels_takes_little_memory():
    """An image's columns, 4 GB and 6.1 GB, would be those of the whole image."""
    assert conv_few_inputs.way(shapes.conv2d((1, 1, 512, 512), (8, 1, 63, 63), 1, 62, 2, 1), 4) is None
    assert conv_few_inputs.way(shapes.conv2d((1, 3, 2048, 2048), (64, 3, 11, 11), 1, 5, 1, 1), 4) is not conv_im2col


GROUPED = [((3, 3), 1, 1), ((9, 14), 1, 1), ((6, 5), ((2, 0), (1, 3)), (2, 1)), ((5, 3), ((0, 3), (4, 0)), 1), ((9, 8), (0, 5), 1)]


@pytest.mark.parametrize(("size", "padding", "dilation"), GROUPED)
@pytest.mark.parametrize(("channels", "rows"), [(2, 3), (4, 3), (8, 3), (4, 1), (8, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_a_few_channels(size, padding, dilation, channels, rows, dtype, rng, kernels_called):
    """Filters three wide that move by one: whole groups side by side in a vector, where they fit into one."""
    if rows == 4 and size == (3, 3):
        size = (4, 3)
    x, w = small_integers(rng, (3, 48, *size), dtype), small_integers(rng, (48, channels, rows, 3), dtype)
    bias, options = small_integers(rng, (48,), dtype), {"padding": padding, "dilation": dilation, "groups": 48 // channels}
    expected = reference.conv2d(x, w, bias, **options)
    grad_output = small_integers(rng, expected.shape, dtype)
    results = [F.conv2d(x, w, bias, **options, algorithm="direct")]
    results += F.conv2d_backward(grad_output, x, w, **options, algorithm="direct")
    assert {"conv_grouped.convolve", "conv_grouped.backward_weight"} <= kernels_called or channels > VECTOR_BYTES // x.itemsize
    for result, wanted in zip(results, (expected, *reference.conv2d_backward(grad_output, x, w, **options)), strict=True):
        assert np.array_equal(result, wanted)


def wide_enough(size, padding):
    """Whether a filter three wide fits into the padded image."""
    return size[1] + (sum(padding[1]) if isinstance(padding, tuple) else 2 * padding) >= 3


SIZES = [(9, 1), (9, 2), (8, 5), (7, 8), (6, 9)]
PADDINGS = [0, 1, 2, ((1, 0), (2, 1)), ((0, 2), (0, 3))]


@pytest.mark.parametrize(("size", "padding"), [case for case in itertools.product(SIZES, PADDINGS) if wide_enough(*case)])
@pytest.mark.parametrize(("rows", "stride", "dilation"), [(3, 2, 1), (1, 1, 1), (3, 3, 2), (4, 1, 1), (2, 4, 1)])
def test_depthwise_input_gradient_by_two(size, padding, rows, stride, dilation, rng, kernels_called):
    """Filters three wide that move by two: all channels of four neighbouring inputs at once, and one by one at the borders."""
    x, w = small_integers(rng, (2, 21, *size), np.float32), small_integers(rng, (21, 1, rows, 3), np.float32)
    options = {"stride": (stride, 2), "padding": padding, "dilation": (dilation, 1), "groups": 21}
    grad_output = small_integers(rng, reference.conv2d(x, w, None, **options).shape, np.float32)
    result = F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(True, False, False))[0]
    assert "conv_depthwise.backward_input_by_two" in kernels_called or grad_output.shape[3] == 1  # where a stride means nothing
    assert np.array_equal(result, reference.conv2d_backward(grad_output, x, w, **options)[0])


@pytest.mark.parametrize(
    "cut", [(1, 1, 18, 18, 2, 1), (2, 1, 4, 18, 4, 2), (3, 2, 18, 18, 4, 1), (5, 3, 18, 18, 2, 9), (37, 1, 7, 18, 2, 3), (5, 1, 1, 7, 2, 9)]
)
def test_every_cut_of_the_weight_gradient(cut, monkeypatch, rng):
    """(splits, images, rows, columns, share, own): that the choice changes the time and nothing else."""
    x, w = small_integers(rng, (37, 33, 18, 18), np.float32), np.zeros((65, 33, 3, 3), np.float32)
    grad_output = small_integers(rng, (37, 65, 18, 18), np.float32)
    expected = reference.conv2d_backward_weight(grad_output, x, w.shape, padding=1)
    monkeypatch.setattr(conv_direct, "_weight_jobs", lambda *arguments: cut)
    monkeypatch.setattr(conv_rows_weight, "fits_weight", lambda *arguments: False)
    result = F.conv2d_backward(grad_output, x, w, padding=1, algorithm="direct", output_mask=(False, True, False))[1]
    assert np.array_equal(result, expected)


@pytest.mark.skipif(MOST_TAPS == 0, reason="this processor reads the input again for each tap")
@pytest.mark.parametrize(
    "cut", [(1, 1, 18, 1, 6, 3), (2, 1, 4, 1, 4, 2), (3, 2, 18, 1, 4, 1), (5, 3, 18, 1, 2, 3), (37, 1, 7, 1, 2, 3), (5, 1, 1, 3, 2, 2)]
)
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"dilation": 2, "padding": ((2, 0), (3, 1))}], ids=str)
def test_every_cut_of_the_weight_gradient_by_rows(cut, options, monkeypatch, rng, kernels_called):
    """(splits, images, rows, parts of the columns, share, own)."""
    x, w = small_integers(rng, (37, 33, 18, 18), np.float32), np.zeros((65, 33, 3, 3), np.float32)
    grad_output = small_integers(rng, reference.conv2d(x, w, None, **options).shape, np.float32)
    expected = reference.conv2d_backward_weight(grad_output, x, w.shape, **options)
    own_cut = conv_rows_weight._cut

    def changed(g, itemsize):
        shape, _, (*_, together) = own_cut(g, itemsize)
        return shape, cut[0], (*cut[1:], together)

    monkeypatch.setattr(conv_rows_weight, "_cut", changed)
    result = F.conv2d_backward(grad_output, x, w, **options, algorithm="direct", output_mask=(False, True, False))[1]
    assert "conv_rows_weight.backward_weight" in kernels_called
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("cut", [(16, 2, 1), (8, 4, 2), (8, 18, 3), (5, 6, 100)])
def test_every_cut_across_images(cut, monkeypatch, rng, kernels_called):
    """(images, share, own): jobs that hold some blocks of channels at a time add to their outputs."""
    x, w = small_integers(rng, (17, 130, 7, 6), np.float32), small_integers(rng, (70, 130, 3, 3), np.float32)
    monkeypatch.setattr(conv_tiles, "_by_images", lambda *arguments: True)
    monkeypatch.setattr(conv_tiles, "_image_cut", lambda shape, packed_shape, *others: (*cut[:2], min(cut[2], packed_shape[2])))
    result = F.conv2d(x, w, padding=1, algorithm="direct")
    assert IMAGES in kernels_called
    assert np.array_equal(result, reference.conv2d(x, w, padding=1))


def test_where_tiles_lie_across_images():
    """Where tiles along rows would multiply a sixteenth more, by zeros, a fifth if they read less; and of images of up to 256 outputs."""

    def across(size, stride=1, filter_size=3, padding=1):
        shape = (64, 64, size, size), (64, 64, filter_size, filter_size)
        return bool(conv_tiles.forward_plan(shapes.conv2d(*shape, stride, padding, 1, 1), 4).across)

    plain = MOST_TAPS == 0
    assert [across(5), across(7), across(11), across(12), across(8, padding=0)] == [True, plain, plain, False, False]
    assert [across(6, 1, 5, 2), across(8, 1, 5, 2)] == [True, plain]
    assert [across(10, 2), across(12, 2), across(21, 2), across(24, 2)] == [True, False, True, False]
    assert [across(16, 1, 5, 2), across(17, 1, 5, 2)] == [plain, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_and_images_give_the_same_bits(dtype, rng, kernels_called):
    """Of few images the pass with ReLU and maxima goes by rows, as it does not share out channels, where the convolution goes by images."""
    x, w = rng.standard_normal((8, 40, 5, 5)).astype(dtype), rng.standard_normal((128, 40, 3, 3)).astype(dtype)
    bias = rng.standard_normal(128).astype(dtype)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, bias, padding=1, algorithm="direct")), 2)
    assert IMAGES in kernels_called
    kernels_called.clear()
    output = conv2d_relu_max_pool2d(x, w, bias, 1, 1, 1, 1, "direct")[0]
    assert "conv_direct.convolve_relu_max" in kernels_called
    assert_same_bits(output, expected, "output")


@pytest.mark.parametrize(("N", "OC", "stride"), [(1, 512, 2), (1, 512, 1), (2, 256, 2), (3, 512, 2), (64, 64, 2)])
def test_few_blocks_share_out_channels(N, OC, stride):
    """Few small images are jobs for several processors, in the forward pass and for the input gradient; many images are not cut further."""
    g = shapes.conv2d((N, 512, 14, 14), (OC, 512, 3, 3), stride, 1, 1, 1)
    for plan in (conv_tiles.forward_plan(g, 4), *conv_tiles.input_plans(g, 4)):
        images, rows, columns, share = plan.cut
        blocks = -(-N // images) * -(-plan.window[0] // rows) * -(-plan.window[1] // columns)
        vectors = plan.channels[1]
        assert share % 2 == 0
        assert blocks * -(-vectors // share) > conv_tiles.FEWEST_JOBS // 2
        assert blocks < conv_tiles.FEWEST_JOBS or share >= vectors


@pytest.mark.parametrize("N", [1, 4, 64])
@pytest.mark.parametrize("channels", [(16, 16), (64, 64), (512, 512), (3, 64), (2048, 8)])
@pytest.mark.parametrize("size", [1, 7, 56])
def test_jobs_of_the_weight_gradient_fit(N, channels, size):
    """Enough jobs for many processors, where there is work for them, and bounded memory for private copies."""
    IC, OC = channels
    g = shapes.conv2d((N, IC, size, size), (OC, IC, 3, 3), 1, 1, 1, 1)
    *blocks, BC = conv_tiles.packed_channels(1, OC, IC, 4, conv_direct.WEIGHT_BLOCK_BYTES)
    packed = (*blocks, 3, 3, BC, VECTOR_BYTES // 4)
    splits, images, rows, columns, share, own = conv_direct._weight_jobs(g, packed, 4)
    vectors, CB = packed[1:3]
    assert 1 <= splits <= N * size
    assert 1 <= images <= N
    assert 1 <= rows <= size == columns
    assert 1 <= own <= CB
    jobs = splits * -(-vectors // share) * -(-CB // own)
    most = N * -(-vectors // 2) * CB  # of whole images
    wanted = max(2, min(PARTS, g.flops // conv_tiles.JOB_FLOPS))
    assert jobs >= min(wanted, most) // 2
    assert splits == 1 or splits * np.prod(packed) * 4 <= conv_tiles.PART_BYTES


# input, output channels, kernel, padding
POOLED = {
    "one channel": ((5, 1, 28, 28), 6, (5, 5), 2),
    "six channels": ((5, 6, 14, 14), 16, (5, 5), 0),
    "vectors of channels": ((3, 32, 12, 9), 17, (3, 3), 1),
    "more than a vector": ((2, 33, 9, 12), 40, (3, 3), ((1, 0), (2, 1))),
    "tall": ((2, 3, 61, 7), 5, (7, 3), 3),
    "wide": ((1, 2, 5, 70), 5, (2, 11), 0),
    "pointwise": ((2, 6, 8, 8), 9, (1, 1), 0),
    "padding far below and right": ((2, 3, 3, 4), 5, (2, 2), ((0, 21), (1, 23))),
    "padding far above and left": ((2, 3, 3, 4), 5, (2, 2), ((21, 0), (23, 1))),
    "odd rows that no maximum sees": ((2, 6, 9, 11), 9, (2, 2), 0),
}


@pytest.mark.parametrize("blocks", ["", "small"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", POOLED)
def test_gradients_behind_a_maximum(name, dtype, blocks, rng, monkeypatch, kernels_called):
    if blocks:
        monkeypatch.setattr(conv_pooled, "NEAR_BYTES", 1)
        monkeypatch.setattr(conv_pooled, "INPUT_BYTES", 1)
        monkeypatch.setattr(conv_pooled, "PART_BYTES", 1)
    shape, OC, kernel, padding = POOLED[name]
    x, w = small_integers(rng, shape, dtype), small_integers(rng, (OC, shape[1], *kernel), dtype)
    bias = small_integers(rng, (OC,), dtype)
    before = reference.conv2d(x, w, bias, padding=padding)
    output, argmax, seen = conv2d_relu_max_pool2d(x, w, bias, 1, padding, 1, 1)
    assert seen[1].output_shape == before.shape
    assert np.array_equal(output, reference.max_pool2d(np.maximum(before, 0), 2))
    assert np.array_equal(argmax.transpose(0, 3, 1, 2) == 4, output == 0)
    grad_output = small_integers(rng, output.shape, dtype)
    grad_before = reference.max_pool2d_backward(grad_output, np.maximum(before, 0), 2) * (before > 0)
    expected = reference.conv2d_backward(grad_before, x, w, padding=padding)
    kernels_called.clear()
    results = conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, w)
    assert {"conv_pooled.backward_input", "conv_pooled.backward_weight"} <= kernels_called
    set_num_threads(1)
    for result, again, wanted in zip(results, conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, w), expected, strict=True):
        assert np.array_equal(result, wanted)
        assert_same_bits(again, result)


@pytest.mark.parametrize("images", [16, 37])
def test_images_as_lanes(images, rng, kernels_called):
    """As forward, ReLU and maxima one after the other, to the bit, whatever the rows of a job are."""
    x, w = rng.standard_normal((images, 2, 23, 20), dtype=np.float32), rng.standard_normal((5, 2, 4, 3), dtype=np.float32)
    bias = rng.standard_normal(5, dtype=np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, bias, padding=1)), 2)
    results = []
    for size in (conv_lanes.POOLED_BYTES, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_lanes, "POOLED_BYTES", size)
            kernels_called.clear()
            results.append(conv2d_relu_max_pool2d(x, w, bias, 1, 1, 1, 1)[:2])
            assert "conv_lanes.convolve_relu_max" in kernels_called
    for output, argmax in results:
        assert_same_bits(output, expected)
        assert_same_bits(argmax, results[0][1])


def test_images_as_lanes_have_short_rows(kernels_called, rng):
    """A panel of several images' rows would not fit into memory where rows are very long."""
    x, w = small_integers(rng, (16, 1, 1, 1 << 17), np.float32), small_integers(rng, (3, 1, 1, 3), np.float32)
    y = F.conv2d(x, w)
    np.testing.assert_array_equal(y[..., 5], np.einsum("nchw,ochw->noh", x[..., 5:8], w))
    grad_input, _, grad_bias = F.conv2d_backward(np.ones_like(y), x, w)
    np.testing.assert_array_equal(grad_input[..., 5], np.full((16, 1, 1), w.sum()))
    np.testing.assert_array_equal(grad_bias, np.full(3, y[:, 0].size))
    pooled, _, _ = conv2d_relu_max_pool2d(np.repeat(x, 2, axis=2), w, None, 1, 0, 1, 1)
    np.testing.assert_array_equal(pooled[..., 3], np.maximum(y[..., 6:8].max(axis=-1), 0))
    assert not any(name.startswith("conv_lanes") for name in kernels_called)


@pytest.mark.parametrize("channels", [20, 31, 33, 70])
@pytest.mark.parametrize("size", [(11, 10), (33, 30)])
def test_images_as_lanes_sum_in_the_order_of_the_fused_pass(channels, size, rng, kernels_called):
    x, w = rng.standard_normal((17, channels, *size), dtype=np.float32), rng.standard_normal((5, channels, 3, 3), dtype=np.float32)
    expected = F.max_pool2d(F.relu(F.conv2d(x, w, padding=1, algorithm="direct")), 2)
    assert "conv_lanes.convolve" in kernels_called
    assert_same_bits(conv2d_relu_max_pool2d(x, w, None, 1, 1, 1, 1, "direct")[0], expected)


def test_gradients_behind_a_maximum_heed_what_direct_cannot_take(monkeypatch, rng, kernels_called):
    """Rows too long for memory: auto computes by loops, and "direct" says why it does not."""
    monkeypatch.setattr(conv_direct, "ROW_NUMBERS", 1)
    x, w = small_integers(rng, (2, 3, 8, 8), np.float32), small_integers(rng, (5, 3, 3, 3), np.float32)
    output, argmax, seen = conv2d_relu_max_pool2d(x, w, None, 1, 0, 1, 1)
    conv2d_relu_max_pool2d_backward(output, argmax, seen, w)
    assert "conv_loops.backward_weight" in kernels_called
    assert "conv_pooled.backward_weight" not in kernels_called
    with pytest.raises(ArgumentError, match="would be padded"):
        conv2d_relu_max_pool2d(x, w, None, 1, 0, 1, 1, algorithm="direct")


@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_sums_behind_maxima_are_exact(images, size, rng, kernels_called):
    """Each of the few sums of such a filter is two, of every other of its gradients, of which there are 4 or 9 in an image."""
    x, w = small_integers(rng, (images, 1, 6, 6), np.float32), small_integers(rng, (3, 1, size, size), np.float32)
    output, argmax, seen = conv2d_relu_max_pool2d(x, w, None, 1, (size - 1) // 2, 1, 1, "direct")
    grad_output = small_integers(rng, output.shape, np.float32)
    results = conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, w)
    assert {"conv_pooled.backward_input", "conv_pooled.backward_weight"} <= set(kernels_called)
    before = F.conv2d(x, w, padding=(size - 1) // 2)
    grad_before = F.relu_backward(F.max_pool2d_backward(grad_output, F.relu(before), 2), before)
    expected = (
        reference.conv2d_backward_input(grad_before, w, x.shape, padding=(size - 1) // 2),
        reference.conv2d_backward_weight(grad_before, x, w.shape, padding=(size - 1) // 2),
        grad_before.sum((0, 2, 3)),
    )
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


PICKED = {  # images, channels of input and output, size of the image: which gradients are computed from the convolution's own, written out
    "few channels": (16, 8, 12, 16, (False, False)),
    "more": (16, 32, 40, 24, (True, False)),
    "many": (16, 64, 64, 16, (True, True)),
    "so many that filters are far": (2, 256, 256, 4, (True, True)),
}


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("name", PICKED)
def test_gradients_behind_maxima_where_it_pays(name, allowed, rng, kernels_called):
    N, IC, OC, size, dense = PICKED[name]
    if not allowed:
        dense = (OC * 5 * 3 * IC * 4 > conv_pooled.FILTER_BYTES,) * 2
    x, w = rng.standard_normal((N, IC, size, size), np.float32), rng.standard_normal((OC, IC, 3, 3), np.float32)
    grad_output = rng.standard_normal((N, OC, size // 2, size // 2), np.float32)
    set_winograd(allowed)
    try:
        before, (_, argmax, seen) = F.conv2d(x, w, padding=1), conv2d_relu_max_pool2d(x, w, None, 1, 1, 1, 1)
        kernels_called.clear()
        results = conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, w)
        masked = [conv2d_relu_max_pool2d_backward(grad_output, argmax, seen, w, np.eye(3)[k])[k] for k in range(3)]
    finally:
        set_winograd(True)
    assert ("conv_pooled.backward_input" not in kernels_called, "conv_pooled.backward_weight" not in kernels_called) == dense
    grad_before = F.relu_backward(F.max_pool2d_backward(grad_output, F.relu(before), 2), before)
    expected = F.conv2d_backward(grad_before.astype(np.float64), x.astype(np.float64), w.astype(np.float64), padding=1)
    for result, alone, wanted in zip(results, masked, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
        assert_same_bits(alone, result)


def test_the_weights_gradient_has_a_rule_of_its_own(rng, kernels_called):
    """Seven channels are too few for the others."""
    x, w = rng.standard_normal((64, 7, 14, 14), np.float32), rng.standard_normal((32, 7, 5, 5), np.float32)
    grad_output = rng.standard_normal((64, 32, 10, 10), np.float32)

    def called(function, *arguments, **options):
        kernels_called.clear()
        function(*arguments, **options)
        return {name for name in kernels_called if name.startswith("conv_winograd.")}

    weight = {"conv_winograd.backward_weight"}
    assert called(F.conv2d, x, w) == set()
    assert called(F.conv2d_backward, grad_output, x, w) == weight
    assert called(F.conv2d_backward, grad_output, x, w, output_mask=(True, False, True)) == set()
    assert called(F.conv2d_backward, grad_output, x, w, algorithm="direct") == set()
    assert called(F.conv_transpose2d_backward, x, grad_output, w) == weight
    set_winograd(False)
    try:
        assert called(F.conv2d_backward, grad_output, x, w) == set()
    finally:
        set_winograd(True)


@pytest.mark.parametrize(
    ("input_shape", "options", "evenly"),
    [
        ((3, 9, 12, 14), {"stride": 2}, True),
        ((1, 9, 13, 13), {"stride": (3, 2)}, True),
        ((2, 9, 12, 30), {"stride": (1, 4)}, True),
        ((2, 9, 13, 14), {"stride": 2}, False),
        ((2, 9, 12, 12), {"stride": 2}, False),
        ((2, 9, 14, 14), {"stride": 2, "padding": 1}, False),
    ],
)
def test_strided_products_copy_no_pixels_that_lie_evenly(input_shape, options, evenly, rng, kernels_called, monkeypatch):
    monkeypatch.setattr(conv_direct, "STRIDED_FILTERS", 1)
    x, w = small_integers(rng, input_shape, np.float32), small_integers(rng, (20, 9, 1, 1), np.float32)
    y = F.conv2d(x, w, **options, algorithm="direct")
    assert_same_bits(y, reference.conv2d(x, w, **options))
    assert (PATCHES in kernels_called) == (conv_tiles.LOW_TILES or not evenly)
    kernels_called.clear()
    grad_input, grad_weight, _ = F.conv2d_backward(y, x, w, **options, algorithm="direct")
    expected = reference.conv2d_backward(y, x, w, **options)
    assert np.array_equal(grad_input, expected[0])
    assert np.array_equal(grad_weight, expected[1])
    for copies in (PATCHES, PATCHES_INPUT):
        assert (copies in kernels_called) == (conv_tiles.LOW_TILES or not evenly)


@pytest.mark.parametrize("form", ["serial", "parallel"])
@pytest.mark.parametrize("window", [(9, 7, 1, 2), (5, 14, 2, 1), (5, 7, 2, 2), (3, 4, 3, 4), (1, 7, 1, 2), (2, 1, 3, 1), (0, 0, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 9, 14, 5), (9, 120, 123, 17), (9, 120, 123, 32)])
def test_pixels_that_no_window_sees_are_cleared(shape, dtype, window, form):
    """Also past the caches: where the array is large, and channels fill vectors."""
    size = math.prod(shape)
    assert (size * 4 >= strided.FAR) == (shape[0] == 9)
    memory = empty((size + 64,), np.dtype(dtype))
    assert memory.ctypes.data % VECTOR_BYTES == 0 or shape[0] != 9
    memory[:] = 1
    d = memory[:size].reshape(shape)
    expected, (OH, OW, SH, SW) = np.zeros(shape, dtype), window
    expected[:, : OH * SH : SH, : OW * SW : SW] = 1
    getattr(strided.clear_unseen, form)(d, window)
    np.testing.assert_array_equal(d, expected)
    assert (memory[size:] == 1).all()
    unaligned = memory[1 : size + 1].reshape(shape)
    memory[:] = 1
    getattr(strided.clear_unseen, form)(unaligned, window)
    np.testing.assert_array_equal(unaligned, expected)
    assert memory[0] == 1
    assert (memory[size + 1 :] == 1).all()


@pytest.mark.parametrize("stride", [(1, 2), (2, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("size", [(1, 40), (2, 41), (3, 60), (9, 33)])
@pytest.mark.parametrize("images", [1, 2])
def test_strided_products_leave_no_pixel_as_it_was(images, size, stride, rng, monkeypatch):
    """Also of one image with a single row of outputs, whose stride along rows means nothing."""

    def filled(shape, dtype):
        array = empty(shape, dtype)
        array.fill(np.nan)
        return array

    monkeypatch.setattr(conv_direct, "empty", filled)
    x, w = small_integers(rng, (images, 9, *size), np.float32), small_integers(rng, (20, 9, 1, 1), np.float32)
    grad_output = small_integers(rng, reference.conv2d(x, w, stride=stride).shape, np.float32)
    result = F.conv2d_backward(grad_output, x, w, stride=stride, algorithm="direct", output_mask=(True, False, False))[0]
    np.testing.assert_array_equal(result, reference.conv2d_backward(grad_output, x, w, stride=stride)[0])
    more = tuple(s - 1 for s in stride)
    transposed = F.conv_transpose2d(grad_output, w, stride=stride, output_padding=more, algorithm="direct")
    expected = np.zeros_like(transposed)
    expected[:, :, :: stride[0], :: stride[1]] = np.einsum("nohw,oc->nchw", grad_output, w[:, :, 0, 0])
    np.testing.assert_array_equal(transposed, expected)


@pytest.mark.parametrize("terms", [1, tiles.LONG - 1, tiles.LONG, 1000])
@pytest.mark.parametrize("M", [*range(60), 96, 97, 98, 111, 112])
def test_rows_are_cut_into_even_tiles(M, terms):
    """As few tiles as their height allows, lower ones first, none more than a row higher than another."""
    height, higher = tiles.heights.py_func(M, terms)
    rows, m = [], 0
    while m < M:
        rows.append(height if m < higher else height + 1)
        m += rows[-1]
    most = tiles.SHORT_ROWS if terms < tiles.LONG else simd.MAX_ROWS
    assert m == M
    assert len(rows) == -(-M // most)
    assert rows == sorted(rows)
    assert M == 0 or (rows[0] > 0 and rows[-1] - rows[0] <= 1)

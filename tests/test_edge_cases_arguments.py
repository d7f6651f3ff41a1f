"""Options and shapes that cannot work: a ValueError or TypeError that names the argument, before any kernel runs."""

import numpy as np
import pytest

from fastconv import functional as F
from fastconv.errors import FastconvError

ALGORITHMS = ("loops", "direct", "im2col", "auto")
HUGE = 1 << 62


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def refused(call, error, name):
    """`call` raises `error`, which belongs to fastconv's family and names the argument."""
    with pytest.raises(error) as raised:
        call()
    assert isinstance(raised.value, FastconvError), f"{raised.value!r} is not fastconv's own"
    assert name in str(raised.value), f"{raised.value!r} does not name {name}"


# --- what pairs of extents take ------------------------------------------------------------------------------------------

NEVER = [-1, -HUGE, HUGE, 1 << 200, (1, -1), (HUGE, 1), (1, 2, 3), (1,), ()]
NO_TYPE = [1.5, "2", True, 1j, b"1", {}, (1, 1.0), (True, 1), ("1", 1), ...]


def bad_values(zero_works):
    never = NEVER if zero_works else [0, (0, 1), (1, 0), *NEVER]
    return [(value, ValueError) for value in never] + [(value, TypeError) for value in NO_TYPE]


def bad(**names):
    """(name, value, error) of everything that each option refuses; True where 0 works."""
    return [(name, value, error) for name, zero_works in names.items() for value, error in bad_values(zero_works)]


CONV_BAD = bad(stride=False, dilation=False) + [
    *((name, value, (ValueError, TypeError) if value == "2" else error) for name, value, error in bad(padding=True)),
    ("stride", None, TypeError),
    ("padding", None, TypeError),
    ("dilation", None, TypeError),
    ("padding", "full", ValueError),
    ("padding", "SAME", ValueError),
    ("padding", ((1, 2), 3), (ValueError, TypeError)),
    ("padding", ((1, 2), (3, -1)), ValueError),
    ("padding", ((1, 2), (3, 1), (0, 0)), ValueError),
    ("padding", ((1, 2), (3, HUGE)), ValueError),
    ("padding", ((1, 2), (3, 0.5)), TypeError),
    ("dilation", 3, ValueError),  # larger than the input: the weight's message
    ("groups", 0, ValueError),
    ("groups", -1, ValueError),
    ("groups", 3, ValueError),
    ("groups", HUGE, ValueError),
    ("groups", 1.0, TypeError),
    ("groups", "1", TypeError),
    ("groups", None, TypeError),
    ("groups", True, TypeError),
    ("groups", (1, 1), TypeError),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("name", "value", "error"), CONV_BAD, ids=str)
def test_conv2d_options(name, value, error, algorithm):
    x, w, g = ones(2, 4, 5, 6), ones(6, 4, 3, 3), ones(2, 6, 3, 4)
    options = {name: value, "algorithm": algorithm}
    refused(lambda: F.conv2d(x, w, **options), error, name)
    refused(lambda: F.conv2d_backward(g, x, w, **options), error, name)


TRANSPOSE_BAD = bad(stride=False, padding=True, dilation=False) + [
    (name, value, error) for name, value, error in bad(output_padding=True) if value not in (-1,)
] + [
    ("output_padding", -1, ValueError),
    ("output_padding", 1, ValueError),  # not below stride
    ("output_padding", (0, 1), ValueError),
    ("padding", "same", (ValueError, TypeError)),
    ("padding", 9, ValueError),  # nothing is left
    ("groups", 0, ValueError),
    ("groups", 3, ValueError),
    ("groups", HUGE, ValueError),
    ("groups", None, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error"), TRANSPOSE_BAD, ids=str)
def test_conv_transpose2d_options(name, value, error):
    x, w, g = ones(2, 4, 5, 6), ones(4, 6, 3, 3), ones(2, 6, 7, 8)
    refused(lambda: F.conv_transpose2d(x, w, **{name: value}), error, name)
    refused(lambda: F.conv_transpose2d_backward(g, x, w, **{name: value}), error, name)


@pytest.mark.parametrize("equal", [True, 1.0, np.float32(1), 1 + 0j, (True, 1), (1, 1.0)], ids=repr)
@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups"])
def test_what_equals_a_good_number_is_refused_after_it(name, equal):
    """A geometry that is remembered for 1 must not answer for True, which equals 1."""
    x, w = ones(2, 4, 5, 6), ones(6, 4, 3, 3)
    for value in (1, (1, 1)) if name != "groups" else (1,):
        F.conv2d(x, w, **{name: value})
    refused(lambda: F.conv2d(x, w, **{name: equal}), TypeError, name)


@pytest.mark.parametrize("dilation", [1 << 39, (1, 1 << 39)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_conv2d_options_whose_products_are_large(algorithm, dilation):
    """Each fits into 64 bits, not every product of them does."""
    refused(lambda: F.conv2d(ones(2, 4, 5, 6), ones(6, 4, 3, 3), dilation=dilation, algorithm=algorithm), ValueError, "dilation")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("channels", [2, 64], ids=["serial", "parallel"])
def test_conv2d_with_taps_a_continent_apart(algorithm, channels):
    """The outer taps see padding alone. An algorithm that would make those zeros real says that it does not fit; "auto" computes."""
    far = 1 << 36
    x, w, g = ones(4, channels, 3, 8), ones(channels, channels, 1, 3), ones(4, channels, 3, 8)
    options = {"padding": (0, far), "dilation": (1, far), "algorithm": algorithm}
    if algorithm == "direct":
        refused(lambda: F.conv2d(x, w, **options), ValueError, "algorithm")
        refused(lambda: F.conv2d_backward(g, x, w, **options), ValueError, "algorithm")
        return
    np.testing.assert_array_equal(F.conv2d(x, w, **options), np.full(g.shape, channels, np.float32))
    grad_input, grad_weight, _ = F.conv2d_backward(g, x, w, **options)
    np.testing.assert_array_equal(grad_input, np.full(x.shape, channels, np.float32))
    np.testing.assert_array_equal(grad_weight, np.broadcast_to(np.array([0, 96, 0], np.float32), w.shape))


def test_depthwise_with_taps_a_continent_apart():
    """As above, one filter a channel, which copies rows of a few pixels too."""
    far = 1 << 36
    x, w = ones(4, 5, 3, 8), ones(5, 1, 1, 3)
    options = {"padding": (0, far), "dilation": (1, far), "groups": 5}
    refused(lambda: F.conv2d(x, w, **options, algorithm="direct"), ValueError, "algorithm")
    np.testing.assert_array_equal(F.conv2d(x, w, **options), x)
    grad_input, grad_weight, _ = F.conv2d_backward(x, x, w, **options)
    np.testing.assert_array_equal(grad_input, x)
    np.testing.assert_array_equal(grad_weight, np.broadcast_to(np.array([0, 96, 0], np.float32), w.shape))


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d(ones(1, 2, 5, 6), ones(3, 2, 3, 3), padding=1 << 39),
        lambda: F.conv2d(ones(1, 2, 5, 6), ones(3, 2, 3, 3), padding=1 << 21),
        lambda: F.conv_transpose2d(ones(1, 2, 5, 6), ones(2, 3, 3, 3), stride=1 << 39),
        lambda: F.conv_transpose2d(ones(1, 2, 5, 6), ones(2, 3, 3, 3), dilation=1 << 21),
        lambda: F.adaptive_avg_pool2d(ones(1, 2, 5, 6), 1 << 39),
        lambda: F.avg_pool2d_backward(ones(1, 2, 1, 1), (1, 2, 1 << 39, 1 << 39), 1 << 39),
        lambda: F.adaptive_avg_pool2d_backward(ones(1, 2, 1, 1), (1, 2, 1 << 21, 1 << 21)),
    ],
)
def test_results_beyond_all_memory(call):
    """Sizes that make sense one by one, results of terabytes: no crash and no wait."""
    with pytest.raises((ValueError, MemoryError)):
        call()


# --- shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("shapes", "options", "name"),
    [
        (((2, 4, 5), (6, 4, 3, 3), (6,)), {}, "input"),
        (((2, 4, 5, 6, 1), (6, 4, 3, 3), (6,)), {}, "input"),
        (((2, 0, 5, 6), (6, 0, 3, 3), (6,)), {}, "input"),
        (((2, 4, 0, 6), (6, 4, 3, 3), (6,)), {"padding": 4}, "input"),
        (((2, 4, 5, 0), (6, 4, 3, 3), (6,)), {"padding": 4}, "input"),
        (((2, 4, 5, 6), (6, 4, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 3, 3, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 4, 3, 3), (6,)), {"groups": 2}, "weight"),
        (((2, 4, 5, 6), (0, 4, 3, 3), (0,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 4, 0, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 4, 3, 0), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 4, 6, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (6, 4, 3, 9), (6,)), {"padding": (0, 1)}, "weight"),
        (((2, 4, 5, 6), (5, 2, 3, 3), (5,)), {"groups": 2}, "groups"),
        (((2, 4, 5, 6), (6, 4, 3, 3), (5,)), {}, "bias"),
        (((2, 4, 5, 6), (6, 4, 3, 3), (1,)), {}, "bias"),
        (((2, 4, 5, 6), (6, 4, 3, 3), (6, 1)), {}, "bias"),
        (((2, 4, 5, 6), (6, 4, 3, 3), ()), {}, "bias"),
        (((2, 4, 5, 6), (6, 4, 3, 3), (0,)), {}, "bias"),
    ],
    ids=str,
)
def test_conv2d_shapes(shapes, options, name, algorithm):
    refused(lambda: F.conv2d(*map(np.ones, shapes), **options, algorithm=algorithm), ValueError, name)
    if name != "bias":
        g = ones(2, 6, 3, 4, dtype=np.float64)
        refused(lambda: F.conv2d_backward(g, *map(np.ones, shapes[:2]), **options, algorithm=algorithm), ValueError, name)


@pytest.mark.parametrize(
    ("shapes", "options", "name"),
    [
        (((2, 4, 5), (4, 6, 3, 3), (6,)), {}, "input"),
        (((2, 4, 0, 6), (4, 6, 3, 3), (6,)), {}, "input"),
        (((2, 4, 5, 6), (3, 6, 3, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (4, 0, 3, 3), (0,)), {}, "weight"),
        (((2, 4, 5, 6), (4, 6, 3, 0), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (4, 6, 3), (6,)), {}, "weight"),
        (((2, 4, 5, 6), (4, 6, 3, 3), (4,)), {}, "bias"),
        (((2, 4, 5, 6), (4, 3, 3, 3), (3,)), {"groups": 2}, "bias"),
    ],
    ids=str,
)
def test_conv_transpose2d_shapes(shapes, options, name):
    refused(lambda: F.conv_transpose2d(*map(np.ones, shapes), **options), ValueError, name)


@pytest.mark.parametrize("mask", [(True, True), (True,) * 4, True, None, 7])
def test_output_masks_hold_three(mask):
    arrays = ones(2, 6, 3, 4), ones(2, 4, 5, 6), ones(6, 4, 3, 3)
    refused(lambda: F.conv2d_backward(*arrays, output_mask=mask), (ValueError, TypeError), "output_mask")
    transposed = ones(2, 6, 7, 8), ones(2, 4, 5, 6), ones(4, 6, 3, 3)
    refused(lambda: F.conv_transpose2d_backward(*transposed, output_mask=mask), (ValueError, TypeError), "output_mask")
    refused(lambda: F.linear_backward(ones(2, 3), ones(2, 4), ones(3, 4), output_mask=mask), (ValueError, TypeError), "output_mask")
    normed = ones(2, 3, 4, 4), ones(2, 3, 4, 4), np.zeros(3, np.float32), ones(3)
    refused(lambda: F.batch_norm_backward(*normed, output_mask=mask), (ValueError, TypeError), "output_mask")


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (((2, 4), (3, 5), (3,)), "input"),
        (((2, 4), (0, 4), (0,)), "weight"),
        (((2, 0), (3, 0), (3,)), "weight"),
        (((2, 4), (4,), (1,)), "weight"),
        (((2, 4), (3, 4), (4,)), "bias"),
        (((2, 4), (3, 4), (1,)), "bias"),
        (((2, 4), (3, 4), (3, 1)), "bias"),
    ],
    ids=str,
)
def test_linear_shapes(shapes, name):
    refused(lambda: F.linear(*map(np.ones, shapes)), ValueError, name)


# --- pooling -------------------------------------------------------------------------------------------------------------

POOL_BAD = bad(kernel_size=False, stride=False, padding=True) + [
    ("kernel_size", None, TypeError),
    ("padding", None, TypeError),
    ("padding", "same", TypeError),
    ("padding", 2, ValueError),  # above half the kernel
    ("padding", (0, 2), ValueError),
    ("kernel_size", (5, 7), ValueError),  # above the padded input
    ("kernel_size", 1 << 39, ValueError),
]
MAX_BAD = [*POOL_BAD, *bad(dilation=False), ("dilation", 3, ValueError), ("dilation", 1 << 39, ValueError)]


@pytest.mark.parametrize(("name", "value", "error"), MAX_BAD, ids=str)
def test_max_pool2d_options(name, value, error):
    x, g, options = ones(2, 3, 5, 6), ones(2, 3, 1, 2), {"kernel_size": 3, name: value}
    said = "kernel_size" if name == "dilation" and error is ValueError and value in (3, 1 << 39) else name
    refused(lambda: F.max_pool2d(x, **options), error, said)
    refused(lambda: F.max_pool2d_backward(g, x, **options), error, said)


@pytest.mark.parametrize(("name", "value", "error"), POOL_BAD, ids=str)
def test_avg_pool2d_options(name, value, error):
    x, g, options = ones(2, 3, 5, 6), ones(2, 3, 1, 2), {"kernel_size": 3, name: value}
    refused(lambda: F.avg_pool2d(x, **options), error, name)
    refused(lambda: F.avg_pool2d_backward(g, x.shape, **options), error, name)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 6, 1), (2, 0, 5, 6), (2, 3, 0, 6), (2, 3, 5, 0), ()])
def test_pools_of_wrong_shapes(shape):
    for call in (
        lambda: F.max_pool2d(np.ones(shape), 1),
        lambda: F.avg_pool2d(np.ones(shape), 1),
        lambda: F.adaptive_avg_pool2d(np.ones(shape), 1),
        lambda: F.max_pool2d_backward(np.ones(shape), np.ones(shape), 1),
    ):
        refused(call, ValueError, "input")


def test_windows_that_see_nothing_but_padding():
    """PyTorch reads and writes foreign memory there."""
    refused(lambda: F.max_pool2d(ones(1, 1, 1, 1), 2, 1, 1, dilation=2), ValueError, "window")
    refused(lambda: F.max_pool2d_backward(ones(1, 1, 1, 1), ones(1, 1, 1, 1), 2, 1, 1, dilation=2), ValueError, "window")


@pytest.mark.parametrize(
    "shape", [(2, 3, 5), (2, 3, 5, 6, 1), (2, 0, 5, 6), (2, 3, 0, 6), (-2, 3, 5, 6), (2, 3, HUGE, 6), (2, 3, 5.0, 6), 7, None, "2356"]
)
def test_input_shapes_of_average_gradients(shape):
    refused(lambda: F.avg_pool2d_backward(ones(2, 3, 2, 3), shape, 2), (ValueError, TypeError), "input")
    refused(lambda: F.adaptive_avg_pool2d_backward(ones(2, 3, 2, 3), shape), (ValueError, TypeError), "input")


@pytest.mark.parametrize(("value", "error"), bad_values(False), ids=str)
def test_adaptive_output_sizes(value, error):
    refused(lambda: F.adaptive_avg_pool2d(ones(2, 3, 5, 6), value), error, "output_size")


# --- normalisation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (((3,), (3,), (3,), (3,), (3,)), "input"),
        (((2, 0, 4, 4), (0,), (0,), (0,), (0,)), "input"),
        (((2, 3, 4, 4), (4,), (3,), (3,), (3,)), "running_mean"),
        (((2, 3, 4, 4), (3,), (1,), (3,), (3,)), "running_var"),
        (((2, 3, 4, 4), (3,), (3,), (2,), (3,)), "weight"),
        (((2, 3, 4, 4), (3,), (3,), (3,), (3, 1)), "bias"),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_shapes(shapes, name, training):
    refused(lambda: F.batch_norm(*map(np.ones, shapes), training=training), ValueError, name)


def test_batch_norm_needs_statistics():
    refused(lambda: F.batch_norm(ones(2, 3, 4, 4), None, None), (ValueError, TypeError), "running_mean")
    refused(lambda: F.batch_norm(ones(2, 3, 4, 4), ones(3), None), (ValueError, TypeError), "running_var")
    refused(lambda: F.batch_norm_backward(ones(2, 3, 4, 4), ones(2, 3, 4, 4), None, None), (ValueError, TypeError), "running_mean")
    # the variance of one number is not defined
    refused(lambda: F.batch_norm(ones(1, 3, 1, 1), ones(3), ones(3), training=True), ValueError, "input")


# --- activations, dropout ------------------------------------------------------------------------------------------------


def test_options_of_activations():
    x = ones(2, 3, 4, 4)
    for value in ("erf", None, True, 1):
        refused(lambda value=value: F.gelu(x, approximate=value), (ValueError, TypeError), "approximate")
        refused(lambda value=value: F.gelu_backward(x, x, approximate=value), (ValueError, TypeError), "approximate")
    for value in ("a", None, 1j, (1,)):
        refused(lambda value=value: F.leaky_relu(x, value), TypeError, "negative_slope")
        refused(lambda value=value: F.leaky_relu_backward(x, x, value), TypeError, "negative_slope")


@pytest.mark.parametrize(("dim", "error"), [(4, ValueError), (-5, ValueError), (HUGE, ValueError), (1.0, TypeError), ("1", TypeError)])
def test_softmax_dimensions(dim, error):
    x = ones(2, 3, 4, 4)
    for op in (F.softmax, F.log_softmax):
        refused(lambda op=op: op(x, dim), error, "dim")
    for op in (F.softmax_backward, F.log_softmax_backward):
        refused(lambda op=op: op(x, x, dim), error, "dim")
        refused(lambda op=op: op(x, ones(2, 3, 4, 5)), ValueError, "grad_output")


def test_dropout_arguments():
    x = ones(2, 3, 4, 4)
    for p in (-0.1, 1.5, np.nan, np.inf):
        refused(lambda p=p: F.dropout(x, p), ValueError, "p")
    for p in ("0.5", None, 1j, (0.5,)):
        refused(lambda p=p: F.dropout(x, p), TypeError, "p")
    refused(lambda: F.dropout(x, rng=7), TypeError, "rng")
    refused(lambda: F.dropout(x.tolist()), TypeError, "input")
    refused(lambda: F.dropout(x.astype(np.int32)), TypeError, "input")
    refused(lambda: F.dropout(np.ma.masked_array(x)), TypeError, "input")
    _, mask = F.dropout(x, return_mask=True)
    refused(lambda: F.dropout_backward(ones(2, 3, 4, 5), mask), ValueError, "grad_output")
    refused(lambda: F.dropout_backward(x.astype(np.float16), mask), TypeError, "grad_output")
    refused(lambda: F.dropout_backward(x, mask.astype(np.complex64)), TypeError, "mask")
    refused(lambda: F.dropout_backward(x, mask, 2.0), ValueError, "p")


# --- losses --------------------------------------------------------------------------------------------------------------


def both_passes(name, *arguments, **options):
    return [lambda f=f: getattr(F, f)(*arguments, **options) for f in (name, f"{name}_backward")]


@pytest.mark.parametrize("target", [[0, 5], [-1, 0], [0, -101], [HUGE, 0], [0, 1 << 31], [0, -(1 << 63)]], ids=str)
def test_labels_out_of_range(target):
    for call in both_passes("cross_entropy", ones(2, 5), np.array(target)):
        refused(call, ValueError, "target")


def test_unsigned_labels_out_of_range():
    """2**64 - 100 is not -100."""
    for target in (np.array([0, (1 << 64) - 100], np.uint64), np.array([0, 156], np.uint8), np.array([255, 0], np.uint8)):
        for call in both_passes("cross_entropy", ones(2, 5), target):
            refused(call, ValueError, "target")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (np.array([0.0, 1.0]), TypeError),
        (np.array([0, 1], complex), TypeError),
        (np.array(["0", "1"]), TypeError),
        (np.array([0, 1], object), TypeError),
        (np.array([0, 1], "m8[s]"), TypeError),
        (np.ma.masked_array([0, 1]), TypeError),
        ([0, 1], TypeError),
        (None, TypeError),
        (1, TypeError),
        (np.array([0, 1, 2]), ValueError),
        (np.array([0]), ValueError),
        (np.array(0), ValueError),
        (np.array([[0, 1]]), ValueError),
        (np.array([[0], [1]]), ValueError),
        (np.zeros((2, 5), int), ValueError),
    ],
    ids=str,
)
def test_labels_of_other_types_and_shapes(target, error):
    for call in both_passes("cross_entropy", ones(2, 5), target):
        refused(call, error, "target")


def test_cross_entropy_options():
    x, target = ones(2, 5), np.array([0, 1])
    for value in (-0.1, 1.1, np.nan):
        for call in both_passes("cross_entropy", x, target, label_smoothing=value):
            refused(call, ValueError, "label_smoothing")
    for value in (1.5, "0", None):
        for call in both_passes("cross_entropy", x, target, ignore_index=value):
            refused(call, TypeError, "ignore_index")
    for shape in ((4,), (5, 1), (1,)):
        for call in both_passes("cross_entropy", x, target, ones(*shape)):
            refused(call, ValueError, "weight")
    for call in both_passes("cross_entropy", ones(2, 0), target):
        refused(call, ValueError, "input")
    for call in both_passes("cross_entropy", ones(2, 5, 3), np.zeros((2, 4), int)):
        refused(call, ValueError, "target")


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "cross_entropy"])
def test_reductions(name):
    target = np.array([0, 1]) if name == "cross_entropy" else ones(2, 5) / 2
    for value in ("average", "Mean", "", None, 1, True):
        for call in both_passes(name, ones(2, 5) / 2, target, reduction=value):
            refused(call, (ValueError, TypeError), "reduction")


@pytest.mark.parametrize("name", ["binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"])
def test_losses_of_unequal_shapes(name):
    """PyTorch broadcasts with a warning, nearly always by mistake."""
    for shape in ((2, 1), (5,), (1, 2, 5), (2, 5, 1), (3, 5), ()):
        for call in both_passes(name, ones(2, 5) / 2, np.full(shape, 0.5, np.float32)):
            refused(call, ValueError, "target")
    if name != "mse_loss":
        for shape in ((3, 5), (4,), (2, 2, 5)):
            for call in both_passes(name, ones(2, 5) / 2, ones(2, 5) / 2, weight=ones(*shape)):
                refused(call, ValueError, "weight")


def test_pos_weight_of_another_shape():
    for shape in ((4,), (3, 5), (2, 2, 5)):
        for call in both_passes("binary_cross_entropy_with_logits", ones(2, 5), ones(2, 5), pos_weight=ones(*shape)):
            refused(call, ValueError, "pos_weight")


@pytest.mark.parametrize("odd", [-0.01, 1.01, -np.inf, np.inf])
def test_binary_cross_entropy_takes_probabilities(odd):
    """As PyTorch; NaN is no probability either, but stays NaN so that training can see where it comes from."""
    for dtype in (np.float32, np.float64):
        a = np.full((3, 33), 0.5, dtype)
        a[2, 32] = odd
        for call in both_passes("binary_cross_entropy", a, np.full_like(a, 0.5))[:1]:
            refused(call, ValueError, "input")

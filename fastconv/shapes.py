"""The one home of every shape formula: pairs, padding, output sizes, windows.

Extents are named N, C, H, W (input), IC, OC, KH, KW (weight), OH, OW (output); pairs are SH SW (stride), DH DW (dilation) and
PT PB PL PR (padding at the top, bottom, left and right).
"""

import dataclasses
import functools
import operator
from typing import NamedTuple

from fastconv.errors import ArgumentError, ArgumentTypeError

LIMIT = 1 << 40  # an extent or option above this cannot be meant, and its products would wrap in 64 bits


def integer(name, value, minimum):
    """`value` as an int of at least `minimum`, or an error that names `name`."""
    if type(value) is not int:
        if isinstance(value, bool):
            raise ArgumentTypeError(f"{name} must be an integer, got {value!r}")
        try:
            value = operator.index(value)
        except TypeError:
            raise ArgumentTypeError(f"{name} must be an integer, got {value!r}") from None
    if not minimum <= value <= LIMIT:
        raise ArgumentError(f"{name} must be from {minimum} to 2**40, got {value}")
    return value


def pair(name, value, minimum):
    """An int or (height, width) as two ints of at least `minimum`, or an error that names `name`."""
    if type(value) is tuple and len(value) == 2:
        height, width = value
        if type(height) is type(width) is int and minimum <= height <= LIMIT and minimum <= width <= LIMIT:
            return value  # nearly always: what a layer has checked when it was made
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{name} must be an integer or a pair (height, width), got {value!r}")
        return integer(name, value[0], minimum), integer(name, value[1], minimum)
    value = integer(name, value, minimum)
    return value, value


def padding_sides(padding, kernel, stride, dilation):
    """`padding` as (PT, PB, PL, PR): of an int, a pair, two pairs ((PT, PB), (PL, PR)), "valid" or "same".

    "same" puts the odd row or column at the end, as PyTorch does: PT + PB = DH * (KH - 1), PT = (PT + PB) // 2.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ArgumentError(f'padding must be an integer, a pair, "valid" or "same", got {padding!r}')
        if stride != (1, 1):
            raise ArgumentError(f'padding="same" needs stride 1, got stride {stride}')
        sides = []
        for k, d in zip(kernel, dilation, strict=True):
            total = d * (k - 1)
            sides += [total // 2, total - total // 2]
        return tuple(sides)
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        (PT, PB), (PL, PR) = pair("padding", padding[0], 0), pair("padding", padding[1], 0)
        return PT, PB, PL, PR
    PH, PW = pair("padding", padding, 0)
    return PH, PH, PW, PW


def window_outputs(size, kernel, stride, dilation, before, after, ceil_mode=False):
    """How many windows fit into `size` padded by `before` and `after`; 0 or less when none does.

    floor((size + before + after - dilation*(kernel - 1) - 1) / stride) + 1. With `ceil_mode` the division rounds up, but a window
    must start inside the input or the padding before it (PyTorch's rule).
    """
    room = size + before + after - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


def _check_extents(name, shape, first):
    """Everything but the batch must be at least 1."""
    for axis, extent in enumerate(shape):
        if axis >= first and extent < 1:
            raise ArgumentError(f"{name} has no elements along axis {axis}: shape {shape}; only the batch (axis 0) may be empty")


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2d:
    """The geometry of one convolution, checked.

    It is equal to itself only: what depends on the geometry is looked up at every call, and an object's identity is its quickest key.
    """

    N: int
    IC: int
    H: int
    W: int
    OC: int
    KH: int
    KW: int
    SH: int
    SW: int
    DH: int
    DW: int
    PT: int
    PB: int
    PL: int
    PR: int
    groups: int
    OH: int
    OW: int

    @functools.cached_property
    def input_shape(self):
        return self.N, self.IC, self.H, self.W

    @functools.cached_property
    def weight_shape(self):
        return self.OC, self.IC // self.groups, self.KH, self.KW

    @functools.cached_property
    def output_shape(self):
        return self.N, self.OC, self.OH, self.OW

    @functools.cached_property
    def halves_shape(self):
        """Of maxima of 2 x 2 outputs."""
        return self.N, self.OC, self.OH // 2, self.OW // 2

    @functools.cached_property
    def halves_in_memory(self):
        return self.N, self.OH // 2, self.OW // 2, self.OC

    @functools.cached_property
    def window(self):
        return self.OH, self.OW, self.SH, self.SW, self.PT, self.PL

    @functools.cached_property
    def taps(self):
        return self.KH, self.KW, self.DH, self.DW

    @functools.cached_property
    def flops(self):
        """Floating-point operations of one pass, a multiplication and an addition each counted."""
        return 2 * self.N * self.OC * self.OH * self.OW * (self.IC // self.groups) * self.KH * self.KW


def conv2d(input_shape, weight_shape, stride=1, padding=0, dilation=1, groups=1):
    """Geometry of `conv2d` of an (N, IC, H, W) input by an (OC, IC // groups, KH, KW) weight.

    OH = floor((H + PT + PB - DH*(KH - 1) - 1) / SH) + 1, OW likewise.
    """
    if _is_plain(stride) and _is_plain(padding) and _is_plain(dilation) and type(groups) is int:
        return _plain_conv2d(input_shape, weight_shape, stride, padding, dilation, groups)
    return _conv2d(input_shape, weight_shape, *_conv2d_options(stride, padding, dilation, groups))


def _is_plain(value):
    """Whether `value` is an int or a tuple of two ints, and not True or 1.0, which a cache takes for 1."""
    return type(value) is int or (type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int)


@functools.lru_cache(maxsize=4096)
def _plain_conv2d(input_shape, weight_shape, stride, padding, dilation, groups):
    """`conv2d` of plain options, checked once for each way to write them; the geometry is the one of `_conv2d`."""
    return _conv2d(input_shape, weight_shape, *_conv2d_options(stride, padding, dilation, groups))


def _conv2d_options(stride, padding, dilation, groups):
    """Checked; padding as ((PT, PB), (PL, PR)), unless it is a name."""
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    if not isinstance(padding, str):
        PT, PB, PL, PR = padding_sides(padding, (), (), ())
        padding = (PT, PB), (PL, PR)
    return stride, padding, dilation, integer("groups", groups, 1)


@functools.lru_cache(maxsize=4096)
def _conv2d(input_shape, weight_shape, stride, padding, dilation, groups):
    (N, IC, H, W), (OC, ICG, KH, KW) = input_shape, weight_shape
    _check_extents("input", input_shape, 1)
    _check_extents("weight", weight_shape, 0)
    if IC % groups or OC % groups:
        raise ArgumentError(f"groups must divide the input's {IC} channels and the weight's {OC} output channels, got groups={groups}")
    if ICG * groups != IC:
        raise ArgumentError(
            f"weight {weight_shape} with groups={groups} takes {ICG * groups} input channels, but input {input_shape} has {IC}"
        )
    (SH, SW), (DH, DW) = stride, dilation
    PT, PB, PL, PR = padding_sides(padding, (KH, KW), stride, dilation)
    OH, OW = window_outputs(H, KH, SH, DH, PT, PB), window_outputs(W, KW, SW, DW, PL, PR)
    if OH < 1 or OW < 1:
        raise ArgumentError(
            f"weight's kernel {(KH, KW)} with dilation {dilation} does not fit into the input of {H} x {W} "
            f"padded to {H + PT + PB} x {W + PL + PR}"
        )
    # a stride between single outputs and a dilation between single taps mean nothing: 1 is kinder to address arithmetic
    return Conv2d(
        N, IC, H, W, OC, KH, KW, SH if OH > 1 else 1, SW if OW > 1 else 1, DH if KH > 1 else 1, DW if KW > 1 else 1,
        PT, PB, PL, PR, groups, OH, OW,
    )  # fmt: skip


def conv_transpose2d(input_shape, weight_shape, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Geometry of the convolution whose input gradient `conv_transpose2d` is.

    The (N, IC, H, W) input takes the place of the convolution's output, the (IC, OC // groups, KH, KW) weight is its weight, and
    OH = (H - 1)*SH - 2*PH + DH*(KH - 1) + output_padding + 1 is the extent of its input.
    """
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    padding, output_padding = pair("padding", padding, 0), pair("output_padding", output_padding, 0)
    return _conv_transpose2d(input_shape, weight_shape, stride, padding, output_padding, integer("groups", groups, 1), dilation)


@functools.lru_cache(maxsize=4096)
def _conv_transpose2d(input_shape, weight_shape, stride, padding, output_padding, groups, dilation):
    (N, IC, H, W), (weight_IC, OCG, KH, KW) = input_shape, weight_shape
    _check_extents("input", input_shape, 1)
    _check_extents("weight", weight_shape, 0)
    if weight_IC != IC:
        raise ArgumentError(f"weight {weight_shape} takes {weight_IC} input channels, but input {input_shape} has {IC}")
    if IC % groups:
        raise ArgumentError(f"groups must divide the input's {IC} channels, got groups={groups}")
    for out, s, d in zip(output_padding, stride, dilation, strict=True):
        if out >= max(s, d):
            raise ArgumentError(
                f"output_padding must be smaller than stride or dilation, got output_padding {output_padding}, "
                f"stride {stride}, dilation {dilation}"
            )
    (SH, SW), (DH, DW), (PH, PW) = stride, dilation, padding
    OH = (H - 1) * SH - 2 * PH + DH * (KH - 1) + output_padding[0] + 1
    OW = (W - 1) * SW - 2 * PW + DW * (KW - 1) + output_padding[1] + 1
    if OH < 1 or OW < 1:
        raise ArgumentError(f"padding {padding} leaves nothing of the output: {OH} x {OW} for input {input_shape}")
    # output_padding rows may belong to no window: then the convolution sees them only as a remainder of its division
    return Conv2d(
        N, OCG * groups, OH, OW, IC, KH, KW, SH if H > 1 else 1, SW if W > 1 else 1, DH if KH > 1 else 1,
        DW if KW > 1 else 1, PH, PH, PW, PW, groups, H, W,
    )  # fmt: skip


class Pool2d(NamedTuple):
    """The geometry of one pooling, checked."""

    N: int
    C: int
    H: int
    W: int
    KH: int
    KW: int
    SH: int
    SW: int
    DH: int
    DW: int
    PH: int
    PW: int
    OH: int
    OW: int

    @property
    def output_shape(self):
        return self.N, self.C, self.OH, self.OW


def pool2d(input_shape, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Geometry of a pooling of (N, C, H, W); `stride` None means `kernel_size`.

    Every window must see at least one element of the input.
    """
    kernel = pair("kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair("stride", stride, 1)
    return _pool2d(input_shape, kernel, stride, pair("padding", padding, 0), pair("dilation", dilation, 1), bool(ceil_mode))


@functools.lru_cache(maxsize=4096)
def _pool2d(input_shape, kernel, stride, padding, dilation, ceil_mode):
    N, C, H, W = input_shape
    _check_extents("input", input_shape, 1)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ArgumentError(f"padding must be at most half of kernel_size, got padding {padding}, kernel_size {kernel}")
    out = [
        window_outputs(size, k, s, d, p, p, ceil_mode) for size, k, s, d, p in zip((H, W), kernel, stride, dilation, padding, strict=True)
    ]
    if out[0] < 1 or out[1] < 1:
        raise ArgumentError(
            f"kernel_size {kernel} with dilation {dilation} does not fit into the input of {H} x {W} "
            f"padded to {H + 2 * padding[0]} x {W + 2 * padding[1]}"
        )
    for size, k, s, d, p, count in zip((H, W), kernel, stride, dilation, padding, out, strict=True):
        for o in range(count) if d > 1 else (0, count - 1):
            first = o * s - p
            if first < 0:
                first += -(-(-first) // d) * d  # the first tap that is not in the padding before the input
            if first >= size or first > o * s - p + (k - 1) * d:
                raise ArgumentError(
                    f"a window sees nothing but padding: input {input_shape}, kernel_size {kernel}, stride {stride}, "
                    f"padding {padding}, dilation {dilation}"
                )
    (SH, SW), (DH, DW) = stride, dilation
    return Pool2d(
        N,
        C,
        H,
        W,
        *kernel,
        SH if out[0] > 1 else 1,
        SW if out[1] > 1 else 1,
        DH if kernel[0] > 1 else 1,
        DW if kernel[1] > 1 else 1,
        *padding,
        *out,
    )


def adaptive_output(output_size, H, W):
    """`output_size` of an adaptive pooling, an int or a pair whose None means "as the input", as (OH, OW)."""
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(sizes) != 2:
        raise ArgumentError(f"output_size must be an integer or a pair (height, width), got {output_size!r}")
    return tuple(extent if size is None else integer("output_size", size, 1) for size, extent in zip(sizes, (H, W), strict=True))


def adaptive_window(o, size, outputs):
    """Window o of an adaptive pooling: from floor(o*size/outputs) up to, not including, ceil((o + 1)*size/outputs)."""
    return o * size // outputs, -(-(o + 1) * size // outputs)

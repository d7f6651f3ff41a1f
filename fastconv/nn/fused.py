"""Neighbouring layers of a Sequential whose forward passes are one, because what lies between them need not go through memory.

Results are the same bits. Each layer remembers what its own backward needs, so backward passes do not know of this.
"""

from collections.abc import Callable
from typing import Any

from fastconv.functional.activation import relu_in_place
from fastconv.functional.conv import conv2d_relu_max_pool2d
from fastconv.functional.pool import relu_max_pool2d
from fastconv.nn.activation import ReLU
from fastconv.nn.conv import Conv2d
from fastconv.nn.linear import Linear
from fastconv.nn.module import recording
from fastconv.nn.normalization import BatchNorm2d
from fastconv.nn.pooling import MaxPool2d
from fastconv.shapes import conv2d as geometry


def _halves(pool, H, W):
    """Whether `pool` takes the maxima of 2 x 2 side by side, and there is at least one."""
    options = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
    return options == ((2, 2), (2, 2), (0, 0), (1, 1), False) and H > 1 and W > 1


def _conv_relu_max(input, conv, relu, pool):
    """Only the maxima are written, and a byte for each that says where they come from."""
    arrays, options = conv._arrays(), (conv.stride, conv.padding, conv.dilation, conv.groups)
    g = geometry(input.shape, arrays[0].shape, *options)
    if not _halves(pool, g.OH, g.OW):
        return None
    output, argmax = conv2d_relu_max_pool2d(input, *arrays, *options, algorithm=conv.algorithm, with_argmax=recording())
    conv.remember(input)
    relu.remember(None)
    pool.remember(argmax, g.output_shape)
    return output


def _relu_max(input, relu, pool):
    if getattr(input, "ndim", 0) != 4 or not _halves(pool, *input.shape[2:]):
        return None
    output, argmax = relu_max_pool2d(input, with_argmax=recording())
    relu.remember(None)
    pool.remember(argmax, input.shape)
    return output


def _relu_in_place(input, layer, relu):
    """ReLU over the memory of the layer before it, which does not need its own output."""
    output = relu_in_place(layer.forward(input))
    relu.remember(output)
    return output


_PATTERNS: dict[tuple[type, ...], Callable[..., Any]] = {
    (Conv2d, ReLU, MaxPool2d): _conv_relu_max,
    (ReLU, MaxPool2d): _relu_max,
    (Conv2d, ReLU): _relu_in_place,
    (Linear, ReLU): _relu_in_place,
    (BatchNorm2d, ReLU): _relu_in_place,
}


def forward(layers, i, input):
    """Layer `i` of the list `layers`, and those after it that can be computed with it: (output, how many layers that were)."""
    for count in (3, 2):
        group = layers[i : i + count]
        together = _PATTERNS.get(tuple(type(layer) for layer in group))
        if together and not any("forward" in vars(layer) for layer in group):  # somebody may have put another in its place
            output = together(input, *group)
            if output is not None:
                return output, count
    return layers[i].forward(input), 1

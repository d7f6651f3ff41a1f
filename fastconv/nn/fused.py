"""Neighbouring layers of a Sequential whose passes are one, because what lies between them need not go through memory.

Outputs are the same bits as one layer after the other gives, gradients are the same but for rounding; where filters or gradients are not
finite, more may become NaN, as a convolution behind BatchNorm multiplies its padding. Each layer remembers what its own backward needs,
whether its neighbours are asked together with it or not.
"""

from collections.abc import Callable
from typing import Any

from fastconv.functional.conv import conv2d_relu, conv2d_relu_max_pool2d, conv2d_relu_max_pool2d_backward
from fastconv.functional.linear import linear_relu, relu_linear_backward
from fastconv.functional.norm_conv import batch_norm_relu_conv2d, batch_norm_relu_conv2d_backward
from fastconv.functional.pool import relu_max_pool2d
from fastconv.nn.activation import ReLU
from fastconv.nn.conv import Conv2d
from fastconv.nn.linear import Linear
from fastconv.nn.normalization import BatchNorm2d
from fastconv.nn.pooling import MaxPool2d
from fastconv.nn.recording import recording


def _halves(pool):
    """Whether `pool` takes the maxima of 2 x 2 side by side."""
    return pool.kernel_size == (2, 2) == pool.stride and pool.padding == (0, 0) and pool.dilation == (1, 1) and not pool.ceil_mode


def _conv_relu_max(input, conv, relu, pool):
    """Only the maxima are written, and a byte for each that says where they come from."""
    if not _halves(pool):
        return None
    weight, bias = conv._arrays()
    learning = recording()
    results = conv2d_relu_max_pool2d(
        input, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups, conv.algorithm, with_argmax=learning
    )
    if results is None:
        return None
    output, argmax, seen = results
    if learning:
        conv.remember(input)
        relu.remember(None)
        pool.remember(argmax, seen[1].output_shape, seen)
    return output


def _relu_max(input, relu, pool):
    if getattr(input, "ndim", 0) != 4 or min(input.shape[2:]) < 2 or not _halves(pool):
        return None
    output, argmax = relu_max_pool2d(input, with_argmax=recording())
    relu.remember(None)
    pool.remember(argmax, input.shape)
    return output


def _conv_relu(input, conv, relu):
    output = conv2d_relu(input, *conv._arrays(), conv.stride, conv.padding, conv.dilation, conv.groups, conv.algorithm)
    conv.remember(input)
    relu.remember(output)
    return output


def _linear_relu(input, linear, relu):
    output = linear_relu(input, *linear._arrays())
    linear.remember(input)
    relu.remember(output)
    return output


def _batch_norm_relu(input, norm, relu):
    """ReLU in the pass of the normalization; backward, the sign of its output is computed again rather than read."""
    output = norm.forward_relu(input)
    relu.remember(None)
    return output


def _batch_norm_relu_conv(input, norm, relu, conv):
    """Behind BatchNorm and ReLU a depthwise convolution normalizes its input on its way through the cache, forward and backward."""
    if conv.groups == 1 or not norm.affine:  # without parameters at the front of a network it would not be asked for gradients
        return None
    options = conv.stride, conv.padding, conv.dilation, conv.groups, conv.algorithm
    results = batch_norm_relu_conv2d(input, norm.arguments(), *conv._arrays(), *options)
    if results is None:
        return None
    output, saved, factors, g = results
    norm.remember(input, saved, norm.uses_batch(), True)
    relu.remember(None)
    conv.remember(None, input, factors, g, saved)
    return output


_PATTERNS: dict[tuple[type, ...], Callable[..., Any]] = {
    (Conv2d, ReLU, MaxPool2d): _conv_relu_max,
    (BatchNorm2d, ReLU, Conv2d): _batch_norm_relu_conv,
    (ReLU, MaxPool2d): _relu_max,
    (Conv2d, ReLU): _conv_relu,
    (Linear, ReLU): _linear_relu,
    (BatchNorm2d, ReLU): _batch_norm_relu,
}


def _conv_relu_max_backward(grad_output, conv, relu, pool, input_gradient):
    argmax, _, *seen = pool.recall()
    if not seen or relu.recall()[0] is not None:
        return None
    mask = input_gradient, True, conv.bias is not None  # ReLU's gradient is in the argmax
    return (conv._accumulate(conv2d_relu_max_pool2d_backward(grad_output, argmax, *seen, conv.weight.data, mask)),)


def _batch_norm_relu_conv_backward(grad_output, norm, relu, conv, input_gradient):
    (_, *seen), (before, statistics, use_batch, _) = conv.recall(), norm.recall()
    if not seen or relu.recall()[0] is not None or seen[-1] is not statistics:
        return None
    _, factors, g, _ = seen
    of_norm, of_conv = batch_norm_relu_conv2d_backward(
        grad_output, before, statistics, factors, g, use_batch, conv.weight.data, input_gradient, conv.bias is not None
    )
    conv._accumulate((None, *of_conv))
    return (norm.accumulate(*of_norm),)


_BACKWARD = {_conv_relu_max: _conv_relu_max_backward, _batch_norm_relu_conv: _batch_norm_relu_conv_backward}
"""Gradients of three layers that were computed together: (the input's,), or None where they have to be asked one by one."""


def as_they_are(attributes, method):
    """Whether nobody has put a function of his own in the place of a layer's `method`; `attributes` are the layers' dicts."""
    for own in attributes:  # noqa: SIM110, twice as fast as all() of a generator
        if method in own:
            return False
    return True


def plan(layers):
    """What may be computed together at each of `layers`: tuples of (function, layers, their attributes), longest first."""

    def candidates(i):
        groups = [layers[i : i + count] for count in (3, 2)]
        patterns = [(_PATTERNS.get(tuple(map(type, group))), group) for group in groups]
        return tuple((together, group, tuple(map(vars, group))) for together, group in patterns if together)

    return tuple(map(candidates, range(len(layers))))


def forward(layer, candidates, input):
    """`layer`, and those after it that can be computed with it: (output, how many layers that were). `candidates` are of `plan`."""
    for together, group, attributes in candidates:
        if as_they_are(attributes, "forward"):
            output = together(input, *group)
            if output is not None:
                return output, len(group)
    return layer.forward(input), 1


_MAKERS = {Conv2d, Linear, BatchNorm2d, MaxPool2d}
"""Layers whose gradient is an array that nobody else has."""


def is_own(layer, gradient, given, own):
    """Whether nobody else has a layer's `gradient`, made from one that was `given`, which nobody else had if `own`."""
    made = own and type(layer) is ReLU if gradient is given else type(layer) in _MAKERS
    return made and as_they_are((vars(layer),), "backward")


def backward(layers, candidates, count, grad_output, input_gradient, own):
    """The last of the first `count` layers, and those before it whose gradients can be computed with its own: (gradient, how many).

    The gradient is None where `input_gradient` is False and no layer is left. It may be in the memory of grad_output where that is `own`.
    """
    last = layers[count - 1]
    for together, group, attributes in candidates[count - 3] if count > 2 else ():
        if together in _BACKWARD and as_they_are(attributes, "backward"):
            gradients = _BACKWARD[together](grad_output, *group, input_gradient or count > 3)
            if gradients is not None:
                return gradients[0], 3
    if count > 1 and type(last) is Linear and type(layers[count - 2]) is ReLU:
        relu = layers[count - 2]
        (input,) = last.recall()
        if relu.recall()[0] is input and as_they_are((vars(relu), vars(last)), "backward"):
            return last._accumulate(relu_linear_backward(grad_output, input, last.weight.data, (True, True, last.bias is not None))), 2
    if own and type(last) is BatchNorm2d and as_they_are((vars(last),), "backward"):
        return last.backward_in_place(grad_output), 1
    if input_gradient or count > 1:
        return last.backward(grad_output), 1
    return last.backward_parameters(grad_output), 1

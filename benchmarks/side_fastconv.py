"""fastconv's side of the comparison: each workload as a function to time."""

import functools

import numpy as np

from benchmarks.workloads import CONVOLUTIONS, LINEARS, MODELS, Conv, batch, conv_data, linear_data

cached_data = functools.lru_cache(maxsize=1)(conv_data)  # the passes of one shape come one after the other


def configure(threads):
    import fastconv

    fastconv.set_num_threads(threads)


def taken(conv, direction):
    """The algorithm that "auto" takes for a pass of a convolution."""
    from fastconv import shapes
    from fastconv.functional.conv import ALGORITHMS, get_allowed, module_of

    geometry = shapes.conv2d(conv.input, conv.weight, conv.stride, conv.padding, conv.dilation, conv.groups)
    wanted = {"forward": "forward", "backward_input": "input", "backward_weight": "weight"}[direction]
    module = module_of("auto", geometry, np.dtype(np.float32), get_allowed(), wanted)
    return next(algorithm for algorithm, candidate in ALGORITHMS.items() if candidate is module)


def prepare_conv(name, direction, variant):
    """A function that computes one pass and returns its result; `variant` is the algorithm, "auto" or a name."""
    return prepare_pass(direction, variant, **CONVOLUTIONS[name]._asdict())


def prepare_pass(direction, variant, **conv):
    """The same for a convolution that is in no table, by the fields of a `Conv`."""
    from fastconv import functional as F

    conv = Conv.of(conv)
    x, weight, grad_output = cached_data(conv)
    options = {**conv.options, "algorithm": variant}
    if direction == "forward":
        return lambda: F.conv2d(x, weight, None, **options)
    mask = (direction == "backward_input", direction == "backward_weight", False)
    return lambda: F.conv2d_backward(grad_output, x, weight, **options, output_mask=mask)[mask.index(True)]


def prepare_dense(name, direction, variant):
    """As `prepare_conv`, for a dense layer; there is nothing to choose."""
    from fastconv import functional as F

    x, weight, grad_output = linear_data(LINEARS[name])
    if direction == "forward":
        return lambda: F.linear(x, weight)
    mask = (direction == "backward_input", direction == "backward_weight", False)
    return lambda: F.linear_backward(grad_output, x, weight, output_mask=mask)[mask.index(True)]


def prepare_layer(input, weight, padding, variant="auto"):
    """A function that computes all three passes of a convolution that is in no table, and returns the gradient of its weight."""
    from fastconv import functional as F

    x, w, grad_output = conv_data(Conv(tuple(input), tuple(weight), padding=padding))

    def passes():
        F.conv2d(x, w, padding=padding, algorithm=variant)
        return F.conv2d_backward(grad_output, x, w, padding=padding, algorithm=variant)[1]

    return passes


def prepare_step(name, variant="auto", size=None):
    """A function that does one training step of a model, on its batch or the first `size` images, and returns the loss."""
    from fastconv import models, nn, optim

    images, targets = batch(MODELS[name], size)
    model = getattr(models, name)(seed=0)
    loss = nn.BCELoss() if MODELS[name].classes == 1 else nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        value = loss(model(images), targets)
        model.backward_parameters(loss.backward())
        optimizer.step()
        return value

    return step


def as_numpy(result):
    return np.asarray(result)

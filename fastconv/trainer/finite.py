"""Where NaN or infinity came from, when a loss is not finite."""

import contextlib

import numpy as np


def finite(array):
    return bool(np.isfinite(array).all())


def broken_parameter(model):
    """The name of the first parameter that is not finite, or None."""
    return next((name for name, parameter in model.named_parameters() if not finite(parameter.data)), None)


def broken_buffer(model):
    """The name of the first buffer that is not finite, or None."""
    return next((name for name, buffer in model.named_buffers() if buffer.dtype.kind == "f" and not finite(buffer)), None)


def broken_gradient(model):
    """The name of the first gradient that is not finite on the way back from the loss, or None."""
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not finite(parameter.grad):
            return name
    return None


@contextlib.contextmanager
def _listening(model, heard):
    """Inside, every forward pass of a layer without layers of its own tells `heard` its name, itself and its output."""
    wrapped = []

    def wrap(name, module):
        forward = module.forward

        def listen(*inputs):
            output = forward(*inputs)
            heard(name, module, output)
            return output

        module.forward = listen
        wrapped.append(module)

    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                wrap(name, module)
        yield
    finally:
        for module in wrapped:
            del module.forward


def first_broken_layer(model, x):
    """Name and repr of the first layer whose output for `x` is not finite, or None: runs the model once more."""
    found = []

    def heard(name, module, output):
        if not found and not finite(output):
            found.append(f"the output of layer {name}, {module!r}")

    with _listening(model, heard):
        model(x)
    return found[0] if found else None


def broken_data(x, target, indices):
    """Which of the images x[indices] and their targets is not finite, or None."""
    for name, array in (("x", x), ("y", target)):
        if array.dtype.kind == "f" and not finite(array):
            first = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0]
            return f"{name}[{indices[first]}] holds NaN or infinity"
    return None


def trace(model, x, batch):
    """What was not finite first, of a model that gave the finite images `x` a loss that is not."""
    name = broken_parameter(model)
    if name is None:
        return f"{first_broken_layer(model, x) or 'the loss itself, of finite outputs,'} is not finite first"
    return f"{name} is not finite since batch {batch - 1}: {blame_update(model, name)}" if batch > 1 else f"{name} was not finite before"


def blame_update(model, name):
    """Why an update made the parameter `name` not finite: the gradients that it took are still there."""
    gradient = broken_gradient(model)
    return f"the gradient of {gradient} was not finite first" if gradient else f"the update made {name} too large"


def broken_after_epoch(model):
    """What is not finite in a model although its last loss was, and why; or None."""
    name = broken_parameter(model)
    if name:
        return f"{name} is not finite: {blame_update(model, name)}"
    name = broken_buffer(model)
    return f"{name} is not finite: the statistics of a batch were too large" if name else None

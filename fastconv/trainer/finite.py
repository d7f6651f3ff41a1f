"""Where NaN or infinity came from, when a loss is not finite."""

import contextlib

import numpy as np


def finite(array):
    return bool(np.isfinite(array).all())


def broken_state(model):
    """The name of the first parameter or buffer that is not finite, or None."""
    for name, parameter in model.named_parameters():
        if not finite(parameter.data):
            return name
    for name, buffer in model.named_buffers():
        if buffer.dtype.kind == "f" and not finite(buffer):
            return name
    return None


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
        model.forward(x)
    return found[0] if found else None


def trace(model, x, target, indices, batch):
    """What was not finite first, for the images x[indices] and their targets whose loss was not finite."""
    for name, array in (("x", x), ("y", target)):
        if array.dtype.kind == "f" and not finite(array):
            first = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))[0]
            return f"{name}[{indices[first]}] holds NaN or infinity"
    state = broken_state(model)
    if state is None:
        return f"{first_broken_layer(model, x) or 'the loss itself, of finite outputs,'} is not finite first"
    return f"{state} is not finite since batch {batch - 1}: {blame_update(model, state)}" if batch > 1 else f"{state} was not finite before"


def blame_update(model, state):
    """Why an update made `state` not finite: the gradients it took are still there."""
    gradient = broken_gradient(model)
    return f"the gradient of {gradient} was not finite first" if gradient else f"the update made {state} too large"

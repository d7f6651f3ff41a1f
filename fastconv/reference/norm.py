"""Batch normalisation: every channel gets mean 0 and variance 1, then a learned scale and shift."""

import numpy as np


def _over(array):
    """The axes of a mean over one channel: all but axis 1."""
    return (0, *range(2, array.ndim))


def _column(vector, array):
    """One number per channel, shaped so that it broadcasts against `array`."""
    return vector.reshape(1, -1, *[1] * (array.ndim - 2))


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """Y = weight * (X - mean) / sqrt(var + eps) + bias.

    Training takes mean and (biased) variance of the batch, and moves the running ones towards the batch's by `momentum`, in place;
    the running variance is the unbiased one. Otherwise the running mean and variance are used.
    """
    if training:
        mean, var = input.mean(axis=_over(input)), input.var(axis=_over(input))
        if running_mean is not None:
            count = input.size // input.shape[1]
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * count / (count - 1) - running_var)
    else:
        mean, var = running_mean, running_var
    output = (input - _column(mean, input)) / np.sqrt(_column(var, input) + eps)
    if weight is not None:
        output = output * _column(weight, input)
    return output if bias is None else output + _column(bias, input)


def batch_norm_backward(grad_output, input, running_mean, running_var, weight=None, training=False, eps=1e-5):
    """(dL/dX, dL/dweight, dL/dbias); x below is the normalised input and g = dL/dY * weight.

    Evaluation: dL/dX = g / sqrt(var + eps). Training, where mean and variance depend on X too:
    dL/dX = (g - mean(g) - x * mean(g * x)) / sqrt(var + eps).
    """
    over = _over(input)
    mean, var = (input.mean(axis=over), input.var(axis=over)) if training else (running_mean, running_var)
    deviation = np.sqrt(_column(var, input) + eps)
    x = (input - _column(mean, input)) / deviation
    g = grad_output if weight is None else grad_output * _column(weight, input)
    if training:
        grad_input = (g - g.mean(axis=over, keepdims=True) - x * (g * x).mean(axis=over, keepdims=True)) / deviation
    else:
        grad_input = g / deviation
    return grad_input, (grad_output * x).sum(axis=over), grad_output.sum(axis=over)

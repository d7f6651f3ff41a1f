"""One optimizer step for one parameter array: each function returns the new parameter and the new state.

`step` counts from 1. The formulas and defaults are PyTorch's.
"""

import numpy as np


def sgd(parameter, grad, buffer=None, *, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """W <- W - lr * v, with v = momentum * v + (1 - dampening) * g; the first v is g. Returns (W, v)."""
    g = grad + weight_decay * parameter
    if momentum == 0:
        return parameter - lr * g, None
    buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
    return parameter - lr * (g + momentum * buffer if nesterov else buffer), buffer


def adam(parameter, grad, mean, square, step, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """W <- W - lr * m' / (sqrt(s') + eps), where m', s' are the running means of g and g^2, free of their start at 0.

    Returns (W, m, s). Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1.
    """
    g = grad + weight_decay * parameter
    mean = betas[0] * mean + (1 - betas[0]) * g
    square = betas[1] * square + (1 - betas[1]) * g * g
    unbiased_mean, unbiased_square = mean / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
    return parameter - lr * unbiased_mean / (np.sqrt(unbiased_square) + eps), mean, square


def adamw(parameter, grad, mean, square, step, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    """Adam whose weight decay shrinks W itself, not through the gradient: Loshchilov and Hutter 2019 (arXiv 1711.05101)."""
    return adam(parameter * (1 - lr * weight_decay), grad, mean, square, step, lr=lr, betas=betas, eps=eps)


def rmsprop(parameter, grad, square, grad_mean=None, buffer=None, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
    """W <- W - lr * g / (sqrt(s) + eps), where s is the running mean of g^2; centred by that of g when `grad_mean` is given.

    Returns (W, s, grad_mean, buffer); with `momentum`, buffer = momentum * buffer + g / (sqrt(s) + eps) is what is subtracted.
    """
    g = grad + weight_decay * parameter
    square = alpha * square + (1 - alpha) * g * g
    variance = square
    if grad_mean is not None:
        grad_mean = alpha * grad_mean + (1 - alpha) * g
        variance = square - grad_mean * grad_mean
    direction = g / (np.sqrt(variance) + eps)
    if momentum > 0:
        buffer = direction if buffer is None else momentum * buffer + direction
        direction = buffer
    return parameter - lr * direction, square, grad_mean, buffer

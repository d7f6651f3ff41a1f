"""Losses: how wrong a prediction is, as one number, and which way the prediction should move.

`reduction` is "mean", "sum" or "none". A backward function gives the gradient of the reduced loss; after "none" it takes
`grad_output`, the gradient of every single loss.
"""

import numpy as np

from fastconv.reference.activation import log_softmax, sigmoid, softmax


def _reduced(losses, reduction, divisor):
    if reduction == "none":
        return losses
    return float(losses.sum() / (divisor if reduction == "mean" else 1))


def _share(losses_shape, dtype, reduction, divisor, grad_output):
    """Derivative of the reduced loss by every single loss."""
    if reduction == "none":
        return np.ones(losses_shape, dtype) if grad_output is None else grad_output
    return np.full(losses_shape, 1 / (divisor if reduction == "mean" else 1), dtype)


# --- classes -------------------------------------------------------------------------------------------------------------


def _class_weights(input, target, weight, ignore_index, label_smoothing):
    """(N, C, ...) factors q so that loss = -sum over c of q_c log p_c, and the weight of every target (0 where it is ignored).

    q = (1 - s) w onehot(target) + (s / C) w, where s is the label smoothing and w the weight of a class.
    """
    C = input.shape[1]
    w = np.ones(C, input.dtype) if weight is None else weight
    kept = target != ignore_index
    label = np.where(kept, target, 0)
    onehot = np.moveaxis(np.eye(C, dtype=input.dtype)[label], -1, 1)
    column = w.reshape(-1, *[1] * (input.ndim - 2))
    q = ((1 - label_smoothing) * onehot + label_smoothing / C) * column
    return q * kept[:, None], w[label] * kept


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """-log softmax(input)[target], weighted by class. The mean is over the weights of the targets that are not ignored."""
    q, target_weight = _class_weights(input, target, weight, ignore_index, label_smoothing)
    losses = -(q * log_softmax(input, 1)).sum(axis=1)
    return _reduced(losses, reduction, target_weight.sum())


def cross_entropy_backward(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0, grad_output=None):
    """p * sum over c of q_c - q: for plain cross entropy, softmax minus one-hot target."""
    q, target_weight = _class_weights(input, target, weight, ignore_index, label_smoothing)
    share = _share(target.shape, input.dtype, reduction, target_weight.sum(), grad_output)
    return (softmax(input, 1) * q.sum(axis=1, keepdims=True) - q) * share[:, None]


# --- two classes ---------------------------------------------------------------------------------------------------------


def binary_cross_entropy(input, target, weight=None, reduction="mean"):
    """-y log(a) - (1 - y) log(1 - a), each logarithm at least -100."""
    with np.errstate(divide="ignore"):
        losses = -(target * np.maximum(np.log(input), -100) + (1 - target) * np.maximum(np.log(1 - input), -100))
    return _reduced(losses if weight is None else losses * weight, reduction, input.size)


def binary_cross_entropy_backward(input, target, weight=None, reduction="mean", grad_output=None):
    """(a - y) / (a (1 - a)), the denominator at least 1e-12."""
    share = _share(input.shape, input.dtype, reduction, input.size, grad_output)
    gradient = (input - target) / np.maximum(input * (1 - input), 1e-12)
    return (gradient if weight is None else gradient * weight) * share


def binary_cross_entropy_with_logits(input, target, weight=None, reduction="mean", pos_weight=None):
    """-p y log(sigmoid(z)) - (1 - y) log(1 - sigmoid(z)), where log(1 + exp(.)) never overflows: p weighs the positive class."""
    positive = 1 if pos_weight is None else pos_weight
    losses = positive * target * np.logaddexp(0, -input) + (1 - target) * np.logaddexp(0, input)
    return _reduced(losses if weight is None else losses * weight, reduction, input.size)


def binary_cross_entropy_with_logits_backward(input, target, weight=None, reduction="mean", pos_weight=None, grad_output=None):
    """(1 - y) s - p y (1 - s), which is s - y when p = 1."""
    positive = 1 if pos_weight is None else pos_weight
    share = _share(input.shape, input.dtype, reduction, input.size, grad_output)
    gradient = (1 - target) * sigmoid(input) - positive * target * sigmoid(-input)
    return (gradient if weight is None else gradient * weight) * share


# --- numbers -------------------------------------------------------------------------------------------------------------


def mse_loss(input, target, reduction="mean"):
    """(a - y)^2."""
    return _reduced((input - target) ** 2, reduction, input.size)


def mse_loss_backward(input, target, reduction="mean", grad_output=None):
    """2 (a - y)."""
    return 2 * (input - target) * _share(input.shape, input.dtype, reduction, input.size, grad_output)

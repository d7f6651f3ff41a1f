"""Batch normalization."""

import math

import numpy as np

from fastconv.functional.norm import batch_norm_backward_saved, batch_norm_forward_saved
from fastconv.functional.options import number
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter, float_dtype
from fastconv.shapes import integer


class BatchNorm2d(Module):
    """Give each channel mean 0 and deviation 1, then scale and shift it: (N, C, H, W) to the same.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float or None
        The share of the new value in the running statistics; None means that they are the plain average of all batches.
    affine : bool
        Whether there are weight and bias.
    track_running_stats : bool
        Without them, evaluation uses the statistics of its batch too.
    dtype : float32 or float64

    Attributes
    ----------
    weight, bias : Parameter of shape (C,), or None
        Ones and zeros at first.
    running_mean, running_var : ndarray of shape (C,), or None
        What evaluation uses; running_var is the unbiased estimate.
    num_batches_tracked : int64 array of no axes, or None

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.

    Notes
    -----
    y = (x - mean) / sqrt(var + eps) * weight + bias. In training mode mean and (biased) variance are the batch's, over N, H, W, and
    running = (1 - momentum) * running + momentum * new.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, sections 3 and 3.1.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, *, dtype=np.float32):
        self.num_features = C = integer("num_features", num_features, 1)
        self.eps = number("eps", eps, 0, math.inf)
        self.momentum = None if momentum is None else number("momentum", momentum, 0, 1)
        self.affine, self.track_running_stats = bool(affine), bool(track_running_stats)
        dtype = float_dtype(dtype)
        self.weight = Parameter(np.ones(C, dtype)) if affine else None
        self.bias = Parameter(np.zeros(C, dtype)) if affine else None
        self.register_buffer("running_mean", np.zeros(C, dtype) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(C, dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.array(0, np.int64) if track_running_stats else None)

    def forward(self, input):
        return self._forward(input, False)

    def forward_relu(self, input):
        """ReLU of `forward`, in the same pass over memory; backward then takes the gradient of that."""
        return self._forward(input, True)

    def forward_sum_relu(self, input, addend):
        """ReLU of `forward` + addend, in the same pass over memory; backward remains that of `forward`."""
        return self._forward(input, True, addend)

    def _forward(self, input, relu, addend=None):
        output, statistics = batch_norm_forward_saved(input, *self.arguments(), relu=relu, addend=addend)
        self.remember(input, statistics, self.uses_batch(), relu and addend is None)
        return output

    def uses_batch(self):
        """Whether mean and variance are those of the input."""
        return self.training or not self.track_running_stats

    def arguments(self):
        """What functions take besides the input."""
        momentum = self.momentum
        batches = self.num_batches_tracked if self.training and self.track_running_stats else None
        if momentum is None and batches is not None:
            momentum = 1 / (int(batches) + 1)
        return self.running_mean, self.running_var, *self._arrays(), self.uses_batch(), momentum or 0.0, self.eps, batches

    def backward(self, grad_output):
        return self._backward(grad_output, False)

    def backward_in_place(self, grad_output):
        """`backward`, perhaps in the memory of grad_output, which nobody else needs."""
        return self._backward(grad_output, True)

    def _backward(self, grad_output, in_place):
        input, statistics, use_batch, relu = self.recall()
        weight, bias = self._arrays()
        mask = True, self.affine, self.affine
        return self.accumulate(*batch_norm_backward_saved(
            grad_output, input, statistics, weight, bias, use_batch, relu=relu, output_mask=mask, in_place=in_place
        ))  # fmt: skip

    def accumulate(self, grad_input, grad_weight, grad_bias):
        """Add to the parameters' gradients; the input's."""
        if self.affine:
            self.weight.accumulate(grad_weight)
            self.bias.accumulate(grad_bias)
        return grad_input

    def _arrays(self):
        return (self.weight.data, self.bias.data) if self.affine else (None, None)

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )

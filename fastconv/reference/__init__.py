"""The textbook formulas in plain NumPy: one naive twin of every operation of `fastconv.functional`, with the same arguments.

Slow and meant to be read. Every function computes in the dtype that it is given, takes and gives (N, C, H, W) arrays, checks
nothing, and shares no code with the kernels, so that the tests can compare the two.
"""

from fastconv.reference.activation import (
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from fastconv.reference.conv import (
    conv2d,
    conv2d_backward,
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose2d_backward_bias,
    conv_transpose2d_backward_input,
    conv_transpose2d_backward_weight,
)
from fastconv.reference.dense import dropout, dropout_backward, linear, linear_backward
from fastconv.reference.loss import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
)
from fastconv.reference.norm import batch_norm, batch_norm_backward
from fastconv.reference.optim import adam, adamw, rmsprop, sgd
from fastconv.reference.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)

__all__ = [name for name in dir() if not name.startswith("_")]

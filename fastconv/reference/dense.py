"""The fully connected layer, and dropout."""


def linear(input, weight, bias=None):
    """Z = F W^T + b: one row of `input` is one image's features, one row of `weight` (out, in) is one neuron."""
    output = input @ weight.T
    return output if bias is None else output + bias


def linear_backward(grad_output, input, weight):
    """(dL/dF, dL/dW, dL/db) = (dL/dZ W, dL/dZ^T F, sum of dL/dZ over the images)."""
    rows = grad_output.reshape(-1, weight.shape[0])
    return grad_output @ weight, rows.T @ input.reshape(-1, weight.shape[1]), rows.sum(axis=0)


def dropout(input, mask, p=0.5):
    """Y = X * mask / (1 - p): each element is kept (mask 1) with probability 1 - p, and the mean stays what it was."""
    return input * mask / input.dtype.type(1 - p) if p < 1 else input * 0


def dropout_backward(grad_output, mask, p=0.5):
    """dL/dX = dL/dY * mask / (1 - p)."""
    return dropout(grad_output, mask, p)

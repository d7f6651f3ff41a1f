"""Activation layers: elementwise functions, and softmax."""

from fastconv import functional as F
from fastconv.functional.options import choice, number
from fastconv.nn.module import Module
from fastconv.shapes import integer


class ReLU(Module):
    """max(input, 0), any shape; NaN stays NaN."""

    def forward(self, input):
        output = F.relu(input)
        self.remember(output)  # its sign is the input's, and the next layer keeps it anyway
        return output

    def backward(self, grad_output):
        (output,) = self.recall()
        if output is None:  # fused with a neighbour, whose backward leaves out what ReLU would
            return grad_output
        return F.relu_backward(grad_output, output)


class LeakyReLU(Module):
    """The input where it is positive, negative_slope * input elsewhere, any shape."""

    def __init__(self, negative_slope=0.01):
        self.negative_slope = number("negative_slope", negative_slope)

    def forward(self, input):
        output = F.leaky_relu(input, self.negative_slope)
        self.remember(input)
        return output

    def backward(self, grad_output):
        return F.leaky_relu_backward(grad_output, *self.recall(), self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class GELU(Module):
    """Gaussian error linear unit, any shape: input * Phi(input), or its tanh approximation.

    Parameters
    ----------
    approximate : "none" or "tanh"

    References
    ----------
    D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
    """

    def __init__(self, approximate="none"):
        self.approximate = choice("approximate", approximate, "none", "tanh")

    def forward(self, input):
        output = F.gelu(input, self.approximate)
        self.remember(input)
        return output

    def backward(self, grad_output):
        return F.gelu_backward(grad_output, *self.recall(), self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """input * sigmoid(input), any shape."""

    def forward(self, input):
        output = F.silu(input)
        self.remember(input)
        return output

    def backward(self, grad_output):
        return F.silu_backward(grad_output, *self.recall())


class Sigmoid(Module):
    """1 / (1 + exp(-input)), any shape."""

    def forward(self, input):
        output = F.sigmoid(input)
        self.remember(input, output)
        return output

    def backward(self, grad_output):
        input, output = self.recall()
        return F.sigmoid_backward(grad_output, input, output=output)


class Tanh(Module):
    """Hyperbolic tangent, any shape."""

    def forward(self, input):
        output = F.tanh(input)
        self.remember(input, output)
        return output

    def backward(self, grad_output):
        input, output = self.recall()
        return F.tanh_backward(grad_output, input, output=output)


class Softmax(Module):
    """exp(input) over its sum along axis `dim`, any shape.

    For training use `CrossEntropyLoss` on what would be its input.
    """

    def __init__(self, dim=-1):
        self.dim = integer("dim", dim, -64)

    def forward(self, input):
        output = F.softmax(input, self.dim)
        self.remember(output)
        return output

    def backward(self, grad_output):
        return F.softmax_backward(grad_output, *self.recall(), self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"

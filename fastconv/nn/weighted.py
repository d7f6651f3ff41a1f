"""What convolutions and the dense layer share: a weight, a bias, and a backward that may leave out the gradient of the input."""

from fastconv.nn import init
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter, float_dtype


class Weighted(Module):
    """A layer with `weight` and `bias` (a Parameter or None), both uniform in +-1/sqrt(fan_in).

    Subclasses write `_gradients`, one functional call.
    """

    def _initialise(self, weight_shape, bias_size, bias, seed, dtype):
        dtype, rng, fan_in = float_dtype(dtype), init.generator(seed), init.fan_in(weight_shape)
        self.weight = Parameter(init.uniform(weight_shape, fan_in, rng, dtype))
        self.bias = Parameter(init.uniform(bias_size, fan_in, rng, dtype)) if bias else None

    def _arrays(self):
        """Weight and bias as functions take them."""
        return self.weight.data, None if self.bias is None else self.bias.data

    def _input(self):
        """The input of the last forward pass."""
        (input,) = self.recall()
        return input

    def _gradients(self, grad_output, input, output_mask):
        """(grad_input, grad_weight, grad_bias), None where `output_mask` is False."""
        raise NotImplementedError

    def _backward(self, grad_output, input_gradient):
        return self._accumulate(self._gradients(grad_output, self._input(), (input_gradient, True, self.bias is not None)))

    def _accumulate(self, gradients):
        grad_input, grad_weight, grad_bias = gradients
        self.weight.accumulate(grad_weight)
        if grad_bias is not None:
            self.bias.accumulate(grad_bias)
        return grad_input

    def backward(self, grad_output):
        return self._backward(grad_output, True)

    def backward_parameters(self, grad_output):
        self._backward(grad_output, False)

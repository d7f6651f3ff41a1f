"""Pooling layers."""

from fastconv import functional as F
from fastconv.functional.arrays import check_shape, plain
from fastconv.functional.pool import max_pool2d_backward_argmax, max_pool2d_forward_argmax
from fastconv.nn.module import Module
from fastconv.nn.recording import recording
from fastconv.shapes import adaptive_output, pair


class _Window(Module):
    """The options that maximum and average share."""

    def _set_window(self, kernel_size, stride, padding, ceil_mode):
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.ceil_mode = bool(ceil_mode)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


class MaxPool2d(_Window):
    """Maximum over windows, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        Without it, kernel_size.
    padding, dilation : int or (height, width)
        Padding is -inf and never wins.
    ceil_mode : bool
        Round the number of windows up.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be; in forward, when the window does not fit the input.

    Notes
    -----
    Of equal maxima the first in row-major order gets the gradient; NaN is larger than everything.
    """

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, *, ceil_mode=False):
        self._set_window(kernel_size, stride, padding, ceil_mode)
        self.dilation = pair("dilation", dilation, 1)

    def _options(self):
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def forward(self, input):
        if not recording():
            return F.max_pool2d(input, *self._options())
        output, argmax = max_pool2d_forward_argmax(input, *self._options())
        self.remember(argmax, input.shape)  # a byte per output instead of the input, and no second search for the maxima
        return output

    def backward(self, grad_output):
        argmax, input_shape = self.recall()[:2]
        return max_pool2d_backward_argmax(grad_output, argmax, input_shape, *self._options())

    def extra_repr(self):
        return super().extra_repr() + f", dilation={self.dilation}" * (self.dilation != (1, 1))


class AvgPool2d(_Window):
    """Average over windows, (N, C, H, W) to (N, C, OH, OW).

    Parameters
    ----------
    kernel_size : int or (height, width)
    stride : int or (height, width), optional
        Without it, kernel_size.
    padding : int or (height, width)
        Of zeros.
    ceil_mode : bool
        Round the number of windows up.
    count_include_pad : bool
        Divide by the size of the window including padding, or by the number of elements of the input that it sees.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be; in forward, when the window does not fit the input.
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        self._set_window(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def _options(self):
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad

    def forward(self, input):
        output = F.avg_pool2d(input, *self._options())
        self.remember(input.shape)
        return output

    def backward(self, grad_output):
        (input_shape,) = self.recall()
        return F.avg_pool2d_backward(grad_output, input_shape, *self._options())

    def extra_repr(self):
        return super().extra_repr() + f", count_include_pad={self.count_include_pad}"


class AdaptiveAvgPool2d(Module):
    """Average over as many windows as asked for, (N, C, H, W) to (N, C, OH, OW); output_size 1 is the global average.

    Parameters
    ----------
    output_size : int or (height, width)
        None in place of a number means "as the input".

    Raises
    ------
    ValueError, TypeError
        When output_size cannot be.
    """

    def __init__(self, output_size):
        adaptive_output(output_size, 1, 1)  # only for its errors: None stays None until there is an input
        self.output_size = tuple(output_size) if isinstance(output_size, list) else output_size

    def forward(self, input):
        output = F.adaptive_avg_pool2d(input, self.output_size)
        self.remember(input.shape, output.shape)
        return output

    def backward(self, grad_output):
        input_shape, output_shape = self.recall()
        check_shape("grad_output", plain("grad_output", grad_output), output_shape)
        return F.adaptive_avg_pool2d_backward(grad_output, input_shape)

    def extra_repr(self):
        return f"output_size={self.output_size}"

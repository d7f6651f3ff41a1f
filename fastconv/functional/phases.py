"""Input positions by their remainder of the stride: for each, the input gradient is a dense convolution of the output's gradient."""

import math
from typing import NamedTuple


class Phase(NamedTuple):
    """Positions first, first + stride, ..., `count` of them, as a convolution with every `step`-th tap of the filter, backwards.

    That convolution has `taps` taps, `dilation` apart, and `padding` before the output's gradient; `last` is the filter's tap that it
    begins with. Where no tap reaches the positions, `taps` is 0.
    """

    first: int
    count: int
    taps: int
    dilation: int
    padding: int
    last: int
    step: int

    @property
    def own(self):
        """The slice of the filter's taps that are this phase's, forwards."""
        return slice(self.last - (self.taps - 1) * self.step, self.last + 1, self.step)


def phases(size, kernel, stride, dilation, before):
    """The phases of an axis of `size` inputs, `before` of padding before them, as a list.

    Position ih = first + i*stride gathers from oh = (ih + before - kh*dilation) / stride over the kernel taps kh for which this is whole.
    """
    common = math.gcd(dilation, stride)
    step, own_dilation = stride // common, dilation // common

    def phase(first):
        remainder = (first + before) % stride
        k0 = next((k for k in range(min(step, kernel)) if k * dilation % stride == remainder), kernel)
        taps = len(range(k0, kernel, step))
        origin = (first + before - k0 * dilation) // stride
        return Phase(
            first, len(range(first, size, stride)), taps, own_dilation, (taps - 1) * own_dilation - origin, k0 + (taps - 1) * step, step
        )

    return [phase(first) for first in range(min(stride, size))]

"""Dropout."""

from fastconv import functional as F
from fastconv.functional.options import number
from fastconv.nn import init
from fastconv.nn.module import Module
from fastconv.nn.recording import recording


class Dropout(Module):
    """In training mode, set each element to 0 with probability `p` and scale the others by 1 / (1 - p); any shape.

    Parameters
    ----------
    p : float
        From 0 to 1.
    seed : int or numpy.random.Generator, optional
        Of the choice; without it, choices come from the generator of `fastconv.manual_seed`.

    Raises
    ------
    ValueError, TypeError
        When p or seed cannot be.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    def __init__(self, p=0.5, *, seed=None):
        self.p = number("p", p, 0, 1)
        self.rng = None if seed is None else init.generator(seed)

    def forward(self, input):
        rng = init.generator(self.rng)
        if not recording():
            return F.dropout(input, self.p, self.training, rng=rng)
        output, mask = F.dropout(input, self.p, self.training, rng=rng, return_mask=True)
        self.remember(mask, self.p if self.training else 0.0)
        return output

    def backward(self, grad_output):
        return F.dropout_backward(grad_output, *self.recall())

    def extra_repr(self):
        return f"p={self.p}"

"""RMSprop."""

from fastconv.functional.options import number
from fastconv.kernels import optim as kernels
from fastconv.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """RMSprop: gradients divided by the root of their running mean square.

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    alpha : float
        How much of the running means each step keeps.
    eps : float
        Added to the root.
    weight_decay : float
        L2 penalty: weight_decay * parameter is added to the gradient.
    momentum : float
    centered : bool
        Divide by the running deviation: the mean square less the square of the mean.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.

    Notes
    -----
    v = alpha*v + (1 - alpha)*g**2; buf = momentum*buf + g / (sqrt(v) + eps); p = p - lr*buf.

    References
    ----------
    T. Tieleman, G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012; centered: A. Graves, arXiv 1308.0850, section 4.1.
    """

    _counts = True

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
        super().__init__(
            params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        )

    def _check(self, options):
        for name in ("lr", "eps", "weight_decay", "momentum"):
            options[name] = number(name, options[name], 0)
        options["alpha"] = number("alpha", options["alpha"], 0, 1)
        options["centered"] = bool(options["centered"])
        return options

    def _arrays(self, group):
        return "square_avg", "grad_avg" if group["centered"] else "square_avg", "momentum_buffer" if group["momentum"] else "square_avg"

    def _numbers(self, group, row):
        return ()

    def _launch(self, group, size, *arguments):
        lr, alpha, eps, decay, momentum = (float(group[name]) for name in ("lr", "alpha", "eps", "weight_decay", "momentum"))
        kernels.rmsprop(8 * size, *arguments, lr, alpha, eps, decay, momentum, group["centered"])

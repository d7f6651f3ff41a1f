"""Stochastic gradient descent."""

from fastconv.errors import ArgumentError
from fastconv.functional.options import number
from fastconv.kernels import optim as kernels
from fastconv.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    momentum : float
    dampening : float
        1 - dampening is the share of a gradient that enters the momentum, but for the first.
    weight_decay : float
        L2 penalty: weight_decay * parameter is added to the gradient.
    nesterov : bool
        Look ahead by one step of momentum.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.

    Notes
    -----
    g = grad + weight_decay*p; buf = momentum*buf + (1 - dampening)*g, at first g; p = p - lr*buf, with nesterov p - lr*(g + momentum*buf).

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        )

    def _check(self, options):
        for name in ("lr", "momentum", "weight_decay"):
            options[name] = number(name, options[name], 0)
        options["dampening"] = number("dampening", options["dampening"])
        options["nesterov"] = bool(options["nesterov"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ArgumentError(f"nesterov needs a momentum above 0 and no dampening, got {options['momentum']} and {options['dampening']}")
        return options

    def _arrays(self, group):
        return ("momentum_buffer",) if group["momentum"] else ()

    def _numbers(self, group, row):
        return (1.0 if row.new else 1.0 - group["dampening"],)

    def _launch(self, group, size, *arguments):
        lr, decay, momentum = float(group["lr"]), float(group["weight_decay"]), float(group["momentum"])
        if momentum:
            kernels.sgd_momentum(3 * size, *arguments, lr, decay, momentum, group["nesterov"])
        else:
            kernels.sgd(2 * size, *arguments, lr, decay)

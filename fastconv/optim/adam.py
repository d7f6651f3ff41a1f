"""Adam, and AdamW."""

import math

from fastconv.errors import ArgumentError
from fastconv.functional.options import number
from fastconv.kernels import optim as kernels
from fastconv.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam: steps scaled by running moments of the gradient.

    Parameters
    ----------
    params : iterable of Parameter, or of dicts
        See `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        How much of the running mean of the gradient, and of its square, each step keeps.
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        L2 penalty: weight_decay * parameter is added to the gradient.

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.

    Notes
    -----
    m = beta1*m + (1 - beta1)*g; v = beta2*v + (1 - beta2)*g**2; p = p - lr * m/(1 - beta1**t) / (sqrt(v/(1 - beta2**t)) + eps) in step t.

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """

    decoupled = False
    _counts = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _check(self, options):
        for name in ("lr", "eps", "weight_decay"):
            options[name] = number(name, options[name], 0)
        betas = options["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ArgumentError(f"betas must be two numbers, got {betas!r}")
        options["betas"] = tuple(number("betas", beta, 0, 1) for beta in betas)
        if 1 in options["betas"]:
            raise ArgumentError(f"betas must be below 1, got {betas}")
        return options

    def _arrays(self, group):
        return "exp_avg", "exp_avg_sq"

    def _numbers(self, group, row):
        step = row.state.get("step", 0) + 1
        beta1, beta2 = (float(beta) for beta in group["betas"])
        return float(group["lr"]) / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)

    def _launch(self, group, size, *arguments):
        lr, eps, decay = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
        beta1, beta2 = (float(beta) for beta in group["betas"])
        keep, decay = (1.0 - lr * decay, 0.0) if self.decoupled else (1.0, decay)
        kernels.adam(8 * size, *arguments, beta1, beta2, eps, decay, keep)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p = p * (1 - lr*weight_decay) before each of `Adam`'s steps.

    Parameters
    ----------
    params, lr, betas, eps
        As in `Adam`.
    weight_decay : float

    Raises
    ------
    ValueError, TypeError
        When an option cannot be.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)

"""Numerical differentiation: is a backward function the derivative of its forward function?"""

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError, GradientError


def numerical_gradient(function, x, covector=1.0, eps=1e-6):
    """Gradient of sum(covector * function(x)) with respect to x, by central differences, element by element.

    Parameters
    ----------
    function : callable
        Takes `x`, returns an array or a number.
    x : ndarray of float64
        Changed in place while it is probed, and restored.
    covector : ndarray of the result's shape, or a number
    eps : float
        Half the distance between the two probes: the error is of order eps**2 from the curvature and 1e-16 / eps from rounding.

    Returns
    -------
    ndarray of the shape of x, float64
    """
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + eps
        above = np.array(function(x), dtype=np.float64)
        x[index] = value - eps
        below = np.array(function(x), dtype=np.float64)
        x[index] = value
        gradient[index] = np.sum(covector * (above - below)) / (2 * eps)
    return gradient


def gradcheck(function, *inputs, backward=None, eps=1e-6, rtol=1e-4, atol=1e-6, seed=0):
    """Compare analytic gradients with numerical ones, contracted with a random covector.

    Parameters
    ----------
    function : callable or Module
        A function of `inputs`, or a module: then the gradients of the input and of every parameter are checked, and `backward` is
        not given. A loss (a module whose `backward()` takes no argument) is checked for its first input; further inputs are its targets.
    *inputs : ndarrays
        Those of float64 are differentiated; others (integer labels) are passed on as they are.
    backward : callable, for a function
        ``backward(grad_output, *inputs)`` returns the gradient of the differentiated input, or a tuple with one for each.
    eps : float
        Half the distance between the two probes.
    rtol, atol : float
        A gradient passes when abs(analytic - numerical) <= atol + rtol * max(abs(numerical)) everywhere.
    seed : int
        Of the random covector.

    Returns
    -------
    True

    Raises
    ------
    GradientError
        An AssertionError that names the gradient, where it is worst, and both values there.
    ValueError, TypeError
        When the arguments do not fit, or an input or parameter is not float64: float32 is too coarse for differences.

    Notes
    -----
    The numerical gradient is (f(x + eps) - f(x - eps)) / (2 eps) for every element, so the cost is two evaluations per element.
    Functions that are not smooth (ReLU at 0, ties in max-pooling) have no derivative there; keep inputs away from such points.

    Examples
    --------
    >>> gradcheck(np.sin, np.array([0.5, 1.0]), backward=lambda g, x: g * np.cos(x))
    True
    """
    rng = np.random.default_rng(seed)
    if hasattr(function, "backward") and hasattr(function, "forward"):
        if backward is not None:
            raise ArgumentError("backward must not be given for a module, which has its own")
        pairs, evaluate, covector = _module_gradients(function, inputs, rng)
    elif backward is None:
        raise ArgumentTypeError("backward must be given for a function: a callable (grad_output, *inputs) -> gradients")
    else:
        pairs, evaluate, covector = _function_gradients(function, inputs, backward, rng)
    for name, x, analytic in pairs:
        _compare(name, np.asarray(analytic), numerical_gradient(lambda _: evaluate(), x, covector, eps), rtol, atol)
    return True


def _differentiable(inputs):
    """Private, writable copies of the inputs, and the positions of those to differentiate."""
    for i, x in enumerate(inputs):
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype != np.float64:
            raise ArgumentTypeError(f"inputs[{i}] must be float64 for numerical differentiation, got {x.dtype}")
    copies = [np.array(x) if isinstance(x, np.ndarray) else x for x in inputs]
    positions = [i for i, x in enumerate(copies) if isinstance(x, np.ndarray) and x.dtype == np.float64]
    if not positions:
        raise ArgumentTypeError("inputs must hold at least one float64 array to differentiate")
    return copies, positions


def _function_gradients(function, inputs, backward, rng):
    copies, positions = _differentiable(inputs)
    output = np.asarray(function(*copies))
    covector = rng.standard_normal(output.shape)
    gradients = backward(covector if output.ndim else float(covector), *copies)
    if not isinstance(gradients, (tuple, list)):
        gradients = (gradients,)
    if len(gradients) != len(positions):
        raise ArgumentError(f"backward must return one gradient per float64 input, {len(positions)}, got {len(gradients)}")
    pairs = [(f"inputs[{i}]", copies[i], gradient) for i, gradient in zip(positions, gradients, strict=True)]
    return pairs, lambda: function(*copies), covector


def _module_gradients(module, inputs, rng):
    copies, positions = _differentiable(inputs)
    parameters = dict(module.named_parameters())
    for name, parameter in parameters.items():
        if parameter.data.dtype != np.float64:
            raise ArgumentTypeError(f"parameter {name} must be float64 for numerical differentiation, got {parameter.data.dtype}")
    module.zero_grad()
    output = module(*copies)
    if np.ndim(output) == 0:  # a loss: its gradient is that of the prediction, not of the target
        pairs, covector = [("inputs[0]", copies[0], module.backward())], 1.0
    else:
        covector = rng.standard_normal(output.shape)
        pairs = [(f"inputs[{positions[0]}]", copies[positions[0]], module.backward(covector))]
    pairs += [(f"parameter {name}", parameter.data, np.array(parameter.grad)) for name, parameter in parameters.items()]
    return pairs, lambda: module(*copies), covector


def _compare(name, analytic, numerical, rtol, atol):
    if analytic.shape != numerical.shape:
        raise GradientError(f"the gradient of {name} has shape {analytic.shape}, but {name} has shape {numerical.shape}")
    if not numerical.size:
        return
    error = np.abs(analytic - numerical)
    limit = atol + rtol * np.abs(numerical).max()
    if not error.max() <= limit:  # also when NaN
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        place = tuple(int(i) for i in worst)
        raise GradientError(
            f"the gradient of {name} is wrong: at {place} it is {analytic[worst]:.9g}, but numerically {numerical[worst]:.9g} "
            f"(difference {error[worst]:.2g}, allowed {limit:.2g})"
        )

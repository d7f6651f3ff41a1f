"""The lecture, worked out for one image: every quantity forward, every derivative backward with its numerical check, one step of learning.

Everything is computed by fastconv's own layers, in float64. The names are the lecture's: X, W1, b1, Z1, A1, P1, F, W2, b2, Z2, A2, L, Y.
"""

from typing import NamedTuple

import numpy as np

from fastconv import models, nn

EPS = 1e-6  # of central differences: their error is of order eps**2 from the third derivative, and 1e-16 / eps from rounding
LAYERS = ("X", "Z1", "A1", "P1", "F", "Z2", "A2")  # what goes into each layer of the network, and what comes out of the last
ORDER = ("dL/dA2", "dA2/dZ2", "dL/dZ2", "dZ2/dW2", "dL/dW2", "dZ2/db2", "dL/db2", "dZ2/dF", "dL/dF", "dF/dP1", "dL/dP1", "dP1/dA1",
         "dL/dA1", "dA1/dZ1", "dL/dZ1", "dZ1/db1", "dL/db1", "dZ1/dW1", "dL/dW1", "dL/dX")  # fmt: skip


class Check(NamedTuple):
    """A derivative and its numerical check.

    Attributes
    ----------
    name, formula : str
    value, numerical : ndarray
        Of equal shape, that of what the derivative is taken by.
    error : float
        The largest difference over the largest magnitude, where there is a derivative.
    kinks : int
        At how many numbers there is none (a ReLU at 0, a tie in max-pooling): there the differences to both sides disagree.
    """

    name: str
    formula: str
    value: np.ndarray
    numerical: np.ndarray
    error: float
    kinks: int


def differences(function, x):
    """Derivatives of the sum of function() by every number of `x`, which it reads: central, and how far the one-sided ones are apart."""
    central, gap = np.empty(x.shape), np.empty(x.shape)
    middle = np.sum(function())
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + EPS
        above = np.sum(function())
        x[index] = value - EPS
        below = np.sum(function())
        x[index] = value
        central[index] = (above - below) / (2 * EPS)
        gap[index] = abs((above - middle) - (middle - below)) / EPS
    return central, gap


def check(name, formula, value, function, x):
    """The Check of `value` as the derivative of function() by `x`."""
    central, gap = differences(function, x)
    value = np.array(value, np.float64).reshape(x.shape)  # a copy: the update changes parameters in place
    scale = max(np.abs(value).max(), np.abs(central).max(), 1e-6)
    smooth = gap <= 1e-4 * scale
    error = np.abs(value - central)[smooth].max(initial=0.0) / scale
    return Check(name, formula, value, central, float(error), int(np.count_nonzero(~smooth)))


class Walk:
    """One image through the lecture's network and back.

    Parameters
    ----------
    image : ndarray of shape (6, 6)
    target : 0 or 1
        Y.
    seed : int
        Of W1, b1, W2, b2.
    eta : float
        The learning rate of the one update.

    Attributes
    ----------
    forward : dict of str to ndarray
        X, Z1, A1, P1, F, Z2, A2 and L, with the lecture's shapes.
    before, after : dict of str to ndarray
        W1, b1, W2, b2 before and after the update; with the lecture's shapes.
    checks : list of Check
        Links of the chain, such as dZ2/dF (of several outputs, the sum), and derivatives of L, each after the links it needs.
    loss_after : float
        L of the same image after the update.
    """

    SHAPES = {"X": (6, 6), "Z1": (4, 4), "A1": (4, 4), "P1": (2, 2), "F": (4, 1), "Z2": (1, 1), "A2": (1, 1),
              "W1": (3, 3), "b1": (1, 1), "W2": (1, 4), "b2": (1, 1)}  # fmt: skip

    def __init__(self, image, target, seed=0, eta=0.5):
        self.model, self.loss = models.lecture(seed=seed, dtype=np.float64), nn.BCELoss()
        self.layers = list(self.model)
        self.y = np.full((1, 1), float(target))
        self.eta = float(eta)
        self.parameters = dict(zip(("W1", "b1", "W2", "b2"), self.model.parameters(), strict=True))
        self.values = [np.array(image, np.float64).reshape(1, 1, 6, 6)]
        for layer in self.layers:
            self.values.append(layer.forward(self.values[-1]))
        loss = self.loss.forward(self.values[-1], self.y)
        self.forward = {name: value.reshape(self.SHAPES[name]) for name, value in zip(LAYERS, self.values, strict=True)}
        self.forward["L"] = np.full((1, 1), loss)
        self.before = self._state()
        gradients = self._backward()
        found = {c.name: c for c in self._links() + self._products(gradients)}
        self.checks = [found[name] for name in ORDER]
        self._update()
        self.after = self._state()
        self.loss_after = self._loss()

    def _state(self):
        return {name: parameter.data.reshape(self.SHAPES[name]).copy() for name, parameter in self.parameters.items()}

    def _loss(self, start=0, value=None):
        """L, from what goes into layer `start` on."""
        value = self.values[start] if value is None else value
        with nn.no_grad():
            for layer in self.layers[start:]:
                value = layer.forward(value)
            return self.loss.forward(value, self.y)

    def _backward(self):
        """Gradients of L by everything, by name."""
        gradient = self.loss.backward()
        gradients = {"A2": gradient}
        for layer, name in zip(reversed(self.layers), reversed(LAYERS[:-1]), strict=True):
            gradient = gradients[name] = layer.backward(gradient)
        return gradients | {name: parameter.grad for name, parameter in self.parameters.items()}

    def _apply(self, layer):
        """A function that runs one layer on what went into it."""
        with nn.no_grad():
            return self.layers[layer].forward(self.values[layer])

    def _links(self):
        """The factors of the chain, each the derivative of one layer's output, summed over its elements."""
        X, Z1, A1, P1, F, Z2, _ = self.values
        A2, W2 = self.forward["A2"], self.parameters["W2"].data
        ones = np.ones_like(P1)
        windows = np.lib.stride_tricks.sliding_window_view(X[0, 0], (4, 4))
        data = {name: parameter.data for name, parameter in self.parameters.items()}
        return [
            check("dA2/dZ2", "A2 (1 - A2)", A2 * (1 - A2), lambda: self._apply(5), Z2),
            check("dZ2/dW2", "F^T", F, lambda: self._apply(4), data["W2"]),
            check("dZ2/db2", "1", 1.0, lambda: self._apply(4), data["b2"]),
            check("dZ2/dF", "W2^T", W2, lambda: self._apply(4), F),
            check("dF/dP1", "1 at its own place: flatten only reshapes", ones, lambda: self._apply(3), P1),
            check("dP1/dA1", "1 at the maximum of each 2x2 window, else 0", self.layers[2].backward(ones), lambda: self._apply(2), A1),
            check("dA1/dZ1", "1 where Z1 > 0, else 0", Z1 > 0, lambda: self._apply(1), Z1),
            check("dZ1/dW1", "all the numbers of X that a weight meets, summed", windows.sum(axis=(2, 3)),
                  lambda: self._apply(0), data["W1"]),
            check("dZ1/db1", "1 for each of the 16 numbers of Z1", 16.0, lambda: self._apply(0), data["b1"]),
        ]  # fmt: skip

    def _products(self, gradients):
        """The derivatives of L, from the loss back to the image."""
        formulas = [
            ("A2", "(A2 - Y) / (A2 (1 - A2))"),
            ("Z2", "dL/dA2 . dA2/dZ2  =  A2 - Y"),
            ("W2", "(A2 - Y) F^T"),
            ("b2", "A2 - Y"),
            ("F", "W2^T (A2 - Y)"),
            ("P1", "dL/dF, reshaped to (2,2)"),
            ("A1", "each number of dL/dP1 at the place of its window's maximum, else 0"),
            ("Z1", "dL/dA1 where Z1 > 0, else 0"),
            ("b1", "sum of all dL/dZ1"),
            ("W1", "conv(X, dL/dZ1)"),
            ("X", "full convolution of dL/dZ1 with W1 rotated by 180 degrees"),
        ]
        checks = []
        for name, formula in formulas:
            if name in LAYERS:
                start = LAYERS.index(name)
                x = self.values[start]
                found = check(f"dL/d{name}", formula, gradients[name], lambda start=start, x=x: self._loss(start, x), x)
            else:
                found = check(f"dL/d{name}", formula, gradients[name], self._loss, self.parameters[name].data)
            checks.append(found)
        return checks

    def _update(self):
        for parameter in self.parameters.values():
            parameter.data = parameter.data - self.eta * parameter.grad  # not in place: dZ2/dF is checked against the old W2

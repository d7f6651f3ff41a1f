"""The lecture in numbers: every quantity against formulas of its own, and the text that is printed."""

import re

import numpy as np
import pytest

from fastconv.commands import explain as command
from fastconv.explain import EPS, ORDER, Walk, check


def image(seed=0):
    return np.random.default_rng(seed).random((6, 6))


def correlate(x, w):
    return np.array(
        [[(x[i : i + len(w), j : j + len(w)] * w).sum() for j in range(len(x) - len(w) + 1)] for i in range(len(x) - len(w) + 1)]
    )


@pytest.mark.parametrize(("seed", "target"), [(0, 0), (1, 1), (2, 1)])
def test_every_number_follows_the_lectures_formulas(seed, target):
    walk = Walk(image(seed), target, seed=seed, eta=0.1)
    f, p = walk.forward, walk.before
    d = {c.name: c.value.reshape(walk.SHAPES[c.name.rpartition("/d")[2]]) for c in walk.checks}
    Z1 = correlate(f["X"], p["W1"]) + p["b1"]
    A1 = np.where(Z1 > 0, Z1, 0)
    P1 = A1.reshape(2, 2, 2, 2).max(axis=(1, 3))
    F = P1.reshape(4, 1)
    Z2 = p["W2"] @ F + p["b2"]
    A2 = 1 / (1 + np.exp(-Z2))
    L = -target * np.log(A2) - (1 - target) * np.log(1 - A2)
    for name, value in {"Z1": Z1, "A1": A1, "P1": P1, "F": F, "Z2": Z2, "A2": A2, "L": L}.items():
        assert f[name].shape == value.shape
        np.testing.assert_allclose(f[name], value, rtol=1e-13, err_msg=name)
    delta = A2 - target
    routed = np.kron(d["dL/dP1"], np.ones((2, 2))) * (np.kron(P1, np.ones((2, 2))) == A1) * (np.kron(P1, np.ones((2, 2))) > 0)
    rotated = np.pad(d["dL/dZ1"], 2)
    expected = {
        "dL/dA2": delta / (A2 * (1 - A2)),
        "dA2/dZ2": A2 * (1 - A2),
        "dL/dZ2": delta,
        "dL/dW2": delta @ F.T,
        "dL/db2": delta,
        "dL/dF": p["W2"].T @ delta,
        "dL/dP1": (p["W2"].T @ delta).reshape(2, 2),
        "dL/dZ1": routed,
        "dL/db1": d["dL/dZ1"].sum(keepdims=True),
        "dL/dW1": correlate(f["X"], d["dL/dZ1"]),
        "dL/dX": correlate(rotated, p["W1"][::-1, ::-1]),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(d[name], value, rtol=1e-12, atol=1e-15, err_msg=name)
    for name in ("W1", "b1", "W2", "b2"):
        np.testing.assert_allclose(walk.after[name], p[name] - 0.1 * d[f"dL/d{name}"], rtol=1e-13)
    assert walk.loss_after < f["L"]


def test_every_derivative_agrees_with_its_check():
    walk = Walk(image(), 1)
    assert [c.name for c in walk.checks] == list(ORDER)
    assert max(c.error for c in walk.checks) < 1e-7
    assert sum(c.kinks for c in walk.checks) == 0


def test_a_wrong_derivative_shows():
    x = np.array([0.5, 1.0])
    right = check("d", "", 2 * x, lambda: x**2, x)
    wrong = check("d", "", 2.002 * x, lambda: x**2, x)
    assert right.error < 1e-8
    assert wrong.error == pytest.approx(1e-3, rel=0.01)
    np.testing.assert_array_equal(x, [0.5, 1.0])


def test_where_there_is_no_derivative_it_says_so():
    x = np.array([-1.0, 0.0, 1.0])
    found = check("d", "", x > 0, lambda: np.maximum(x, 0), x)
    assert found.kinks == 1
    assert found.error < 1e-8
    assert found.numerical[1] == pytest.approx(0.5, abs=EPS)
    flat = Walk(np.zeros((6, 6)), 1)  # all windows of a blank image are equal: ties everywhere
    assert any(c.kinks for c in flat.checks)
    lines = list(command.text(flat, "blank"))
    assert "at a tie of the maximum" in "\n".join(lines)
    assert max(map(len, lines)) <= 100


def test_the_text_has_every_symbol_and_fits_the_screen():
    lines = list(command.text(Walk(image(), 1), "noise"))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    for name in ORDER:
        assert re.search(rf"^{re.escape(name)} = ", text, re.MULTILINE), name
    for symbol in (
        "X (6,6)",
        "W1 (3,3)",
        "b1 (1,1)",
        "Z1 (4,4)",
        "A1 (4,4)",
        "P1 (2,2)",
        "F (4,1)",
        "W2 (1,4)",
        "b2 (1,1)",
        "Z2 (1,1)",
        "A2 (1,1)",
    ):
        assert symbol in text
    for update in ("W1 <- W1 - eta dL/dW1", "b1 <- b1 - eta dL/db1", "W2 <- W2 - eta dL/dW2", "b2 <- b2 - eta dL/db2"):
        assert update in text
    assert "not flipped" in text
    assert re.search(r"L before: 0\.\d+   L after: 0\.\d+   \(smaller\)", text)

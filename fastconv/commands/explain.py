"""`fastconv explain`: the lecture in numbers."""

from pathlib import Path

import numpy as np

from fastconv.commands.console import natural, positive_float
from fastconv.datasets import load_digits, read_image
from fastconv.errors import ArgumentError
from fastconv.explain import Walk

COLUMNS = 100
PARTS = {
    "dL/dA2": "the loss and the sigmoid",
    "dZ2/dW2": "the dense layer",
    "dF/dP1": "(1) flatten",
    "dP1/dA1": "(2) max-pooling",
    "dA1/dZ1": "(3) ReLU and the convolution",
    "dL/dX": "beyond the lecture: what a layer before this one would be given",
}


def add_arguments(parser):
    parser.add_argument(
        "--image",
        default="11",
        metavar="N|FILE",
        help="a number from 0 to 359: among fastconv's handwritten zeros and ones, "
        "the centre of which is taken; or a picture, which is resized to 6 x 6 (default: %(default)s)",
    )
    parser.add_argument("--target", type=int, choices=(0, 1), help="Y of a picture (default: 1); of a digit it is known")
    parser.add_argument("--seed", type=natural, default=0, help="of the weights (default: %(default)s)")
    parser.add_argument("--eta", type=positive_float, default=0.5, help="the learning rate of the update (default: %(default)s)")


def run(options):
    image, target, source = _image(options.image, options.target)
    for line in text(Walk(image, target, options.seed, options.eta), source):
        print(line)
    return 0


def _image(choice, target):
    """The image (6, 6), its Y, and where it comes from."""
    if not choice.isdecimal():
        picture = read_image(Path(choice), 6, grayscale=True, dtype=np.float64)
        return picture[0], 1 if target is None else target, choice
    digits = load_digits(dtype=np.float64)
    images, labels = np.concatenate([digits.x_train, digits.x_test]), np.concatenate([digits.y_train, digits.y_test])
    chosen = np.flatnonzero(labels <= 1)
    if int(choice) >= len(chosen):
        raise ArgumentError(f"--image must be a number from 0 to {len(chosen) - 1} or a picture, got {choice}")
    index = chosen[int(choice)]
    label = int(labels[index])
    return images[index, 0, 1:7, 1:7], label, f"the centre of a handwritten {'one' if label else 'zero'}"


# --- text ----------------------------------------------------------------------------------------------------------------


def text(walk, source):
    """Yield the lines of the whole explanation, none longer than COLUMNS."""
    yield 'One image through the network of the lecture "Backpropagation in CNN": forward, backward, and one'
    yield "step of learning. Every number is computed by fastconv's own layers, in float64."
    yield from _forward(walk, source)
    yield from _backward(walk)
    yield from _update(walk)


def _title(text):
    return ["", f"{text} {'=' * (COLUMNS - len(text) - 1)}"]


def _matrix(array):
    return ["".join(f"{value:8.4f}" for value in row) for row in np.atleast_2d(array)]


def _shape(array):
    return f"({','.join(map(str, array.shape))})"


def _beside(*columns, gap="    "):
    """Blocks of lines next to each other."""
    widths = [max(map(len, column)) for column in columns]
    for row in range(max(map(len, columns))):
        yield gap.join(
            (column[row] if row < len(column) else "").ljust(width) for column, width in zip(columns, widths, strict=True)
        ).rstrip()


def _named(name, array):
    return [f"   {name} {_shape(array)}", *_matrix(array)]


def _forward(walk, source):
    f, before = walk.forward, walk.before
    yield from _title("Forward")
    yield f"X is {source}; Y = {walk.y[0, 0]:.0f}. The parameters are drawn by seed."
    steps = [
        (
            "Z1 = conv(X, W1) + b1",
            "conv is cross-correlation: the filter is not flipped",
            [_named("X", f["X"]), _named("W1", before["W1"])],
        ),
        ("", "", [_named("b1", before["b1"]), _named("Z1", f["Z1"])]),
        ("A1 = relu(Z1);  P1 = maxpool(A1), 2x2;  F = flatten(P1)", "", [_named(name, f[name]) for name in ("A1", "P1", "F")]),
        (
            "Z2 = W2 F + b2;  A2 = sigmoid(Z2)",
            "",
            [_named("W2", before["W2"]), *(_named(n, a) for n, a in (("b2", before["b2"]), ("Z2", f["Z2"]), ("A2", f["A2"])))],
        ),
    ]
    for formula, note, blocks in steps:
        if formula:
            yield ""
            yield formula + (f"   ({note})" if note else "")
        yield from _beside(*blocks)
    yield ""
    yield f"L = -Y log(A2) - (1 - Y) log(1 - A2)  =  {f['L'][0, 0]:.6f}"


def _backward(walk):
    yield from _title("Backward")
    yield "dL/dW1 = dL/dA2 . dA2/dZ2 . dZ2/dF . dF/dP1 . dP1/dA1 . dA1/dZ1 . dZ1/dW1; for b1 dZ1/db1 is last"
    yield "Left: by the chain rule. Right: by central differences, (f(x + h) - f(x - h)) / 2h with h = 1e-6;"
    yield "how far off they are, relative to the largest number. Of a link with several outputs: their sum."
    for check in walk.checks:
        if check.name in PARTS:
            yield ""
            yield f"--- {PARTS[check.name]}"
        yield from _check(walk, check)
    worst = max(check.error for check in walk.checks)
    yield ""
    yield f"{len(walk.checks)} derivatives checked; the largest relative error is {worst:.1e}."


def _check(walk, check):
    shape = walk.SHAPES[check.name.rpartition("/d")[2]]
    left = f"{check.name} = {check.formula}"
    right = f"({','.join(map(str, shape))})  error {check.error:.0e}"
    yield ""
    yield left + right.rjust(COLUMNS - len(left))
    yield from _beside(_matrix(check.value.reshape(shape)), _matrix(check.numerical.reshape(shape)), gap="   ")
    if check.kinks:
        yield f"({check.kinks} without a derivative, at a tie of the maximum or a ReLU at 0: the two sides differ)"


def _update(walk):
    yield from _title(f"Update, eta = {walk.eta:g}")
    for name, old in walk.before.items():
        yield ""
        yield f"{name} <- {name} - eta dL/d{name}"
        yield from _beside(_matrix(old), ["  ->"], _matrix(walk.after[name]), gap="")
    before, after = walk.forward["L"][0, 0], walk.loss_after
    yield ""
    yield f"L before: {before:.6f}   L after: {after:.6f}   ({'smaller' if after < before else 'not smaller: eta is too large'})"

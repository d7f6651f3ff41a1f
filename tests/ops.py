"""One table of every operation: its arguments, its forward and its backward call, in words that any twin understands.

`forward(F, **arguments)` and `backward(F, grad_output, **arguments)` take the module to call: fastconv.functional, fastconv.reference
or, forward only, torch.nn.functional. A loss has no gradient of its output: its backward ignores `grad_output`.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from checks import distinct


class Op(NamedTuple):
    """One operation with shapes that are large enough to show mistakes and small enough for numerical differentiation."""

    name: str
    arguments: dict  # name: function of a generator and a shape's batch size that draws the argument in float64 or as integers
    forward: Callable
    backward: Callable  # gives {argument: gradient}
    unused: tuple = ()  # float arguments that have no gradient

    @property
    def function(self):
        return self.name.partition("-")[0]

    def draw(self, rng, dtype=np.float64, batch=2):
        """Fresh arguments; floats in `dtype`, labels as they are."""
        drawn = {name: draw(rng, batch) for name, draw in self.arguments.items()}
        return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in drawn.items()}


def values(*shape):
    """Distinct numbers, the batch in front."""
    return lambda rng, batch: distinct(rng, (batch, *shape))


def parameter(*shape):
    """Distinct numbers, without a batch."""
    return lambda rng, batch: distinct(rng, shape)


def positive(*shape):
    return lambda rng, batch: 1 + distinct(rng, shape) / 4


def probabilities(*shape):
    """Between 0.1 and 0.9."""
    return lambda rng, batch: 0.5 + distinct(rng, (batch, *shape)) / 5


def labels(classes, *shape):
    return lambda rng, batch: rng.integers(0, classes, (batch, *shape))


def _conv(name, IC, H, W, OC, kernel, groups=1, **options):
    options["groups"] = groups
    return Op(
        f"conv2d-{name}",
        {"input": values(IC, H, W), "weight": parameter(OC, IC // groups, *kernel), "bias": parameter(OC)},
        lambda F, input, weight, bias: F.conv2d(input, weight, bias, **options),
        lambda F, g, input, weight, bias: _named(F.conv2d_backward(g, input, weight, **options), "input", "weight", "bias"),
    )


def _conv_transpose(name, IC, H, W, OC, kernel, groups=1, **options):
    options["groups"] = groups
    return Op(
        f"conv_transpose2d-{name}",
        {"input": values(IC, H, W), "weight": parameter(IC, OC // groups, *kernel), "bias": parameter(OC)},
        lambda F, input, weight, bias: F.conv_transpose2d(input, weight, bias, **options),
        lambda F, g, input, weight, bias: _named(F.conv_transpose2d_backward(g, input, weight, **options), "input", "weight", "bias"),
    )


def _named(gradients, *names):
    return dict(zip(names, gradients, strict=True))


def _max_pool(name, C, H, W, **options):
    return Op(
        f"max_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.max_pool2d(input, **options),
        lambda F, g, input: {"input": F.max_pool2d_backward(g, input, **options)},
    )


def _avg_pool(name, C, H, W, **options):
    return Op(
        f"avg_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.avg_pool2d(input, **options),
        lambda F, g, input: {"input": F.avg_pool2d_backward(g, input.shape, **options)},
    )


def _adaptive_pool(name, C, H, W, output_size):
    return Op(
        f"adaptive_avg_pool2d-{name}",
        {"input": values(C, H, W)},
        lambda F, input: F.adaptive_avg_pool2d(input, output_size),
        lambda F, g, input: {"input": F.adaptive_avg_pool2d_backward(g, input.shape)},
    )


def _linear(name, *shape, outputs):
    return Op(
        f"linear-{name}",
        {"input": values(*shape), "weight": parameter(outputs, shape[-1]), "bias": parameter(outputs)},
        lambda F, input, weight, bias: F.linear(input, weight, bias),
        lambda F, g, input, weight, bias: _named(F.linear_backward(g, input, weight), "input", "weight", "bias"),
    )


def _batch_norm(name, C, *plane, training, eps=1e-5):
    def forward(F, input, running_mean, running_var, weight, bias):
        running = copy.deepcopy(running_mean), copy.deepcopy(running_var)  # training moves them: each call its own
        return F.batch_norm(input, *running, weight, bias, training=training, momentum=0.2, eps=eps)

    def backward(F, g, input, running_mean, running_var, weight, bias):
        gradients = F.batch_norm_backward(g, input, running_mean, running_var, weight, training=training, eps=eps)
        return _named(gradients, "input", "weight", "bias")

    vectors = {"running_mean": parameter(C), "running_var": positive(C), "weight": parameter(C), "bias": parameter(C)}
    return Op(f"batch_norm-{name}", {"input": values(C, *plane), **vectors}, forward, backward, unused=("running_mean", "running_var"))


def _activation(name, *shape, **options):
    function = name.partition("-")[0]
    return Op(
        name,
        {"input": values(*shape)},
        lambda F, input: getattr(F, function)(input, **options),
        lambda F, g, input: {"input": getattr(F, f"{function}_backward")(g, input, **options)},
    )


def _softmax(name, *shape, dim):
    function = name.partition("-")[0]

    def backward(F, g, input):
        output = getattr(F, function)(input, dim=dim)
        return {"input": getattr(F, f"{function}_backward")(g, output, dim=dim)}

    return Op(name, {"input": values(*shape)}, lambda F, input: getattr(F, function)(input, dim=dim), backward)


def _loss(name, arguments, **options):
    """`arguments` beyond input and target are array options, such as class weights."""
    function = name.partition("-")[0]

    def backward(F, g, input, target, **arrays):
        given = {"grad_output": g} if options.get("reduction") == "none" else {}
        return {"input": getattr(F, f"{function}_backward")(input, target, **arrays, **options, **given)}

    return Op(
        name,
        arguments,
        lambda F, input, target, **arrays: getattr(F, function)(input, target, **arrays, **options),
        backward,
        unused=tuple(a for a in arguments if a != "input"),
    )


CONVOLUTIONS = [
    _conv("plain", 3, 6, 5, 4, (3, 3)),
    _conv("strided", 5, 7, 9, 17, (3, 2), stride=(2, 3), padding=(1, 0)),
    _conv("dilated", 4, 7, 8, 3, (2, 3), dilation=(2, 3), padding=2),
    _conv("grouped", 6, 5, 4, 9, (3, 3), groups=3, padding=1),
    _conv("depthwise", 5, 6, 7, 10, (3, 3), groups=5, padding=1),
    _conv("pointwise", 6, 3, 4, 5, (1, 1)),
]
TRANSPOSED = [
    _conv_transpose("plain", 3, 4, 5, 4, (3, 2)),
    _conv_transpose("strided", 4, 3, 4, 6, (3, 3), stride=(2, 3), padding=1, output_padding=(1, 0), groups=2),
]
POOLS = [
    _max_pool("halving", 5, 6, 8, kernel_size=2),
    _max_pool("overlapping", 3, 7, 6, kernel_size=(3, 2), stride=(2, 1), padding=1),
    _max_pool("dilated", 3, 9, 8, kernel_size=2, stride=2, dilation=(3, 2), ceil_mode=True),
    _avg_pool("halving", 5, 6, 8, kernel_size=2),
    _avg_pool("overlapping", 3, 7, 6, kernel_size=(3, 2), stride=(2, 1), padding=1, count_include_pad=False),
    _avg_pool("ceil", 3, 7, 8, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _adaptive_pool("global", 5, 4, 6, 1),
    _adaptive_pool("overlapping", 3, 7, 5, (3, 2)),
]
DENSE = [_linear("plain", 7, outputs=5), _linear("sequence", 3, 6, outputs=4)]
NORMS = [
    _batch_norm("training", 5, 4, 3, training=True),
    _batch_norm("evaluation", 5, 4, 3, training=False, eps=0.1),
]
ACTIVATIONS = [
    _activation("relu", 5, 4, 3),
    _activation("leaky_relu", 5, 4, 3),
    _activation("leaky_relu-steep", 5, 4, 3, negative_slope=-0.5),
    _activation("gelu", 5, 4, 3),
    _activation("gelu-tanh", 5, 4, 3, approximate="tanh"),
    _activation("silu", 5, 4, 3),
    _activation("sigmoid", 5, 4, 3),
    _activation("tanh", 5, 4, 3),
]
SOFTMAXES = [
    _softmax("softmax-last", 9, dim=-1),
    _softmax("softmax-channels", 5, 3, 4, dim=1),
    _softmax("log_softmax-last", 9, dim=-1),
    _softmax("log_softmax-channels", 5, 3, 4, dim=1),
]
_LOGITS, _PROBABILITIES = (
    {"input": values(6, 3), "target": probabilities(6, 3)},
    {"input": probabilities(6, 3), "target": probabilities(6, 3)},
)
_CLASSES, _CLASS_MAP = {"input": values(7), "target": labels(7)}, {"input": values(4, 3, 2), "target": labels(4, 3, 2)}
LOSSES = [
    _loss("cross_entropy", _CLASSES),
    _loss("cross_entropy-sum", _CLASSES, reduction="sum"),
    _loss("cross_entropy-none", _CLASSES, reduction="none"),
    _loss("cross_entropy-weighted", {**_CLASSES, "weight": positive(7)}, label_smoothing=0.3, ignore_index=2),
    _loss("cross_entropy-map", {**_CLASS_MAP, "weight": positive(4)}, ignore_index=1),
    _loss("cross_entropy-map_none", _CLASS_MAP, reduction="none", label_smoothing=0.1),
    _loss("binary_cross_entropy", _PROBABILITIES),
    _loss("binary_cross_entropy-sum", {**_PROBABILITIES, "weight": positive(6, 3)}, reduction="sum"),
    _loss("binary_cross_entropy-none", _PROBABILITIES, reduction="none"),
    _loss("binary_cross_entropy_with_logits", _LOGITS),
    _loss("binary_cross_entropy_with_logits-sum", {**_LOGITS, "weight": positive(6, 3), "pos_weight": positive(3)}, reduction="sum"),
    _loss("binary_cross_entropy_with_logits-none", {**_LOGITS, "pos_weight": positive(6, 3)}, reduction="none"),
    _loss("mse_loss", _LOGITS),
    _loss("mse_loss-sum", _LOGITS, reduction="sum"),
    _loss("mse_loss-none", _LOGITS, reduction="none"),
]
OPS = CONVOLUTIONS + TRANSPOSED + POOLS + DENSE + NORMS + ACTIVATIONS + SOFTMAXES + LOSSES


def ids(ops):
    return [op.name for op in ops]

"""`fastconv bench`: a quick look at the speed of this computer (benchmarks/compare.py compares with PyTorch)."""

import functools
import json
import time

import numpy as np

from fastconv import functional as F
from fastconv import models, nn, optim
from fastconv.commands.console import CompileNotice, add_threads, positive_float, positive_int, table
from fastconv.kernels import jit

CONVOLUTIONS = [  # name, (N, IC, H, W), (OC, IC, KH, KW), options
    ("conv 3x3, 64 to 64", (16, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    ("conv 3x3, 256 to 256", (16, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    ("conv 3x3, 256 to 256, stride 2", (16, 256, 28, 28), (256, 256, 3, 3), {"padding": 1, "stride": 2}),
    ("conv 1x1, 256 to 256", (16, 256, 28, 28), (256, 256, 1, 1), {}),
    ("conv 5x5, 1 to 6 (LeNet)", (64, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}),
    ("depthwise 3x3, 256", (16, 256, 28, 28), (256, 1, 3, 3), {"padding": 1, "groups": 256}),
]
DEFAULT_NETWORKS = ("lenet5", "mnist_cnn", "resnet20")


def add_arguments(parser):
    parser.add_argument(
        "--model",
        action="append",
        choices=tuple(models.INPUT_SHAPES),
        metavar="NETWORK",
        help="measure training steps of this "
        "network only; may be repeated (default: convolutions, and " + ", ".join(DEFAULT_NETWORKS) + ")",
    )
    parser.add_argument("--batch-size", type=positive_int, default=64, metavar="N", help="of the networks (default: 64)")
    parser.add_argument("--seconds", type=positive_float, default=0.5, metavar="S", help="for each measurement (default: 0.5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_threads(parser)


def run(options):
    if options.threads:
        jit.set_num_threads(options.threads)
    with CompileNotice():
        results = [] if options.model else list(_convolutions(options.seconds))
        results += [_network(name, options.batch_size, options.seconds) for name in options.model or DEFAULT_NETWORKS]
    if options.json:
        print(json.dumps({"threads": jit.get_num_threads(), "results": results}, indent=1))
        return 0
    print(f"float32, {jit.get_num_threads()} threads, medians")
    rows = [("work", "ms", "GFLOP/s", "images/s")]
    for result in results:
        rate = result.get("gflops")
        rows.append((result["work"], f"{result['ms']:.3f}", f"{rate:.1f}" if rate else "", f"{result['images_per_second']:,.0f}"))
    for line in table(rows, right=(1, 2, 3)):
        print(line)
    return 0


def measure(function, seconds):
    """Median time of a call in seconds: of at least five calls after the first, for about `seconds`."""
    function()  # loads or compiles
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _result(work, seconds, images, flops=None):
    result = {"work": work, "ms": 1e3 * seconds, "images_per_second": images / seconds}
    return {**result, "gflops": flops / seconds / 1e9} if flops else result


def _convolutions(seconds):
    rng = np.random.default_rng(0)
    for name, (N, C, H, W), weight_shape, options in CONVOLUTIONS:
        x = rng.standard_normal((N, H, W, C), np.float32).transpose(0, 3, 1, 2)
        yield from _convolution(name, x, rng.standard_normal(weight_shape, np.float32), options, seconds)


def _convolution(name, x, weight, options, seconds):
    """The three passes of one convolution."""
    y = F.conv2d(x, weight, **options)
    flops = 2 * y.size * weight[0].size
    yield _result(f"{name}: forward", measure(lambda: F.conv2d(x, weight, **options), seconds), len(x), flops)
    for target, mask in (("input", (True, False, False)), ("weight", (False, True, False))):
        gradient = functools.partial(F.conv2d_backward, y, x, weight, **options, output_mask=mask)
        yield _result(f"{name}: gradient of the {target}", measure(gradient, seconds), len(x), flops)


def _network(name, batch_size, seconds):
    """A training step of a network, SGD with momentum, as the Trainer does it."""
    rng = np.random.default_rng(0)
    C, H, W = models.INPUT_SHAPES[name]
    model = models.create(name, seed=0).train()
    x = rng.standard_normal((batch_size, H, W, C), np.float32).transpose(0, 3, 1, 2)
    binary = name == "lecture"
    loss = nn.BCELoss() if binary else nn.CrossEntropyLoss()
    target = np.ones((batch_size, 1), np.float32) if binary else rng.integers(0, 10, batch_size)
    optimizer = optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step():
        loss(model(x), target)
        optimizer.zero_grad()
        model.backward_parameters(loss.backward())
        optimizer.step()

    return _result(f"training step of {name}, batch {batch_size}", measure(step, seconds), batch_size)

"""One convolution of any shape: the time of each pass, by algorithm. What docs/decisions.md says of single shapes is measured with it.

    python benchmarks/layer.py 32,512,4,4 512,512,3,3 --padding 1
    python benchmarks/layer.py 8,96,27,27 256,48,5,5 --padding 2 --groups 2 --algorithms winograd,direct
    python benchmarks/layer.py 64,64,32,32 64,64,3,3 --padding 1 --maxima

Algorithms take turns, and the median over all turns counts. To compare two versions, run it in a checkout of each, in turns.
"""

import argparse
import functools
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from benchmarks.workloads import Conv, conv_data  # noqa: E402
from fastconv import functional as F  # noqa: E402
from fastconv.functional.conv import ALGORITHMS, conv2d_relu_max_pool2d, conv2d_relu_max_pool2d_backward  # noqa: E402

PASSES = ("forward", "input gradient", "weight gradient")


def extents(text):
    """Four extents, comma-separated."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4:
        raise ValueError
    return numbers


def passes(conv, algorithm, maxima):
    """The passes, as functions; with `maxima` those of ReLU and maxima of 2 x 2 behind the convolution too."""
    x, weight, grad_output = conv_data(conv)
    options = {**conv.options, "algorithm": algorithm}
    if maxima:
        output, argmax, seen = conv2d_relu_max_pool2d(x, weight, None, **options)

        def behind(*mask):
            return lambda: conv2d_relu_max_pool2d_backward(output, argmax, seen, weight, mask)

        forward = functools.partial(conv2d_relu_max_pool2d, x, weight, None, **options)
        return [forward, behind(True, False, False), behind(False, True, True)]

    def gradient(*mask):
        return lambda: F.conv2d_backward(grad_output, x, weight, **options, output_mask=mask)

    return [lambda: F.conv2d(x, weight, None, **options), gradient(True, False, False), gradient(False, True, False)]


def measure(conv, algorithms, maxima, rounds, seconds):
    """{(algorithm, pass): median time in s}."""
    functions = {(name, PASSES[k]): f for name in algorithms for k, f in enumerate(passes(conv, name, maxima))}
    times = {key: [] for key in functions}
    for function in functions.values():
        function()  # compiles
    for _ in range(rounds):
        for key, function in functions.items():
            function()  # fills the caches again
            end = time.perf_counter() + seconds
            while True:
                start = time.perf_counter()
                function()
                times[key].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
    return {key: statistics.median(values) for key, values in times.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=extents, help="N,IC,H,W")
    parser.add_argument("weight", type=extents, help="OC,IC/groups,KH,KW")
    for name in ("stride", "padding", "dilation", "groups"):
        parser.add_argument(f"--{name}", type=int, default=0 if name == "padding" else 1)
    parser.add_argument("--algorithms", default="auto,direct", help=f"comma-separated: auto,{','.join(ALGORITHMS)}")
    parser.add_argument("--maxima", action="store_true", help="with ReLU and maxima of 2 x 2 behind it, in one pass as in Sequential")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    given = parser.parse_args(arguments)
    conv = Conv(given.input, given.weight, given.stride, given.padding, given.dilation, given.groups)
    algorithms = given.algorithms.split(",")
    times = measure(conv, algorithms, given.maxima, given.rounds, given.seconds)
    print(f"| algorithm | {' | '.join(f'{name}, ms | GFLOP/s' for name in PASSES)} |\n| --- |{' --- | --- |' * 3}")
    for name in algorithms:
        cells = (f"{times[name, part] * 1e3:.3g} | {conv.flops / times[name, part] * 1e-9:.0f}" for part in PASSES)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

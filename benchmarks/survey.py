"""Convolutions that nobody chose: random ones, of kinds that networks have, against PyTorch or all algorithms against each other.

    python benchmarks/survey.py                 48 of them against PyTorch, two minutes once all is compiled
    python benchmarks/survey.py --algorithms    what "auto" takes, against the fastest algorithm

A table of shapes that everybody knows invites tuning to it; this one is another for each --seed. Each library has a process of its own, and
they take turns. Nothing else should run on the machine.
"""

import argparse
import contextlib
import importlib.util
import os
import random
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from tqdm import tqdm  # noqa: E402

from benchmarks.report import geometric_mean, table  # noqa: E402
from benchmarks.side_fastconv import taken  # noqa: E402
from benchmarks.side_torch import LAYOUTS  # noqa: E402
from benchmarks.worker import Worker, WorkerError  # noqa: E402
from benchmarks.workloads import PASSES, Conv  # noqa: E402

ALGORITHMS = ("direct", "im2col", "winograd")
SIZES, CHANNELS = (7, 8, 10, 14, 16, 20, 28, 32, 40, 56, 64, 80, 112), (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
MOST_FLOPS, MOST_NUMBERS = 3e9, 3e7
"""Of a pass, and of its input and output together, as far as fewer images help."""


def kinds(rng):
    """{kind: a function that draws (input channels, output channels, size, filter, stride, dilation, groups, images or 0 for any)}."""

    def channels():
        return rng.choice(CHANNELS)

    def few():
        return rng.choice((1, 3, 4, 6, 8, 12, 16))

    def depthwise(size, stride):
        C = rng.choice((24, 32, 72, 96, 144, 240, 384, 576, 960))
        return C, C, rng.choice(SIZES), size, stride, 1, C, 0

    def patches():
        q = rng.choice((2, 4, 8, 16))
        return rng.choice((3, 64, 96)), rng.choice((64, 96, 192, 384)), q * rng.choice((7, 8, 14)), q, q, 1, 1, 0

    def grouped(G, own):
        return G * own, G * rng.choice((4, 8, 16, 32)), rng.choice(SIZES), 3, rng.choice((1, 1, 2)), 1, G, 0

    def first_layer():
        IC, OC, size = rng.choice((1, 3)), rng.choice((16, 32, 64)), rng.choice((28, 32, 64, 112))
        return IC, OC, size, rng.choice((3, 5, 7, 11)), rng.choice((1, 2, 4)), 1, 1, 0

    def odd():
        return rng.choice((3, 5, 7, 20, 33, 50)), rng.choice((5, 10, 20, 33, 100)), rng.choice((5, 9, 13, 17, 33, 65)), 3, 1, 1, 1, 0

    def between(size, stride=1, dilation=1, images=0):
        return channels(), channels(), rng.choice(SIZES), size, stride, dilation, 1, images

    return {
        "1x1": lambda: between(1, rng.choice((1, 1, 2))),
        "3x3": lambda: between(3),
        "3x3 strided": lambda: between(3, stride=2),
        "3x3 dilated": lambda: between(3, dilation=rng.choice((2, 3, 4))),
        "odd numbers": odd,
        "few channels": lambda: (few(), few(), rng.choice(SIZES), rng.choice((3, 5)), rng.choice((1, 1, 2)), 1, 1, 0),
        "first layer": first_layer,
        "large filter": lambda: (few() * 4, few() * 4, rng.choice(SIZES[4:]), rng.choice((5, 7, 9)), 1, 1, 1, 0),
        "depthwise": lambda: depthwise(rng.choice((3, 3, 5, 7)), rng.choice((1, 2))),
        "grouped": lambda: grouped(rng.choice((2, 4, 8, 32)), rng.choice((4, 8, 16, 32))),
        "patches": patches,
        "one image": lambda: between(rng.choice((1, 3, 3, 5)), images=1),
    }


def draw(rng, count):
    """[(kind, Conv)], the kinds in turns."""
    drawn = []
    draws = list(kinds(rng).items())
    while len(drawn) < count:
        kind, numbers = draws[len(drawn) % len(draws)]
        IC, OC, size, k, stride, dilation, groups, N = numbers()
        padding = 0 if kind == "patches" else dilation * (k - 1) // 2
        conv = Conv((1, IC, size, size), (OC, IC // groups, k, k), stride, padding, dilation, groups)
        images = N or rng.choice((1, 2, 4, 8, 16, 32, 64, 128))
        held = IC * size**2 + OC * conv.output[2] * conv.output[3]
        while images > 1 and images * max(conv.flops / MOST_FLOPS, held / MOST_NUMBERS) > 1:
            images //= 2
        drawn.append((kind, conv._replace(input=(images, *conv.input[1:]))))
    return drawn


def turns(contestants, rounds, seconds, **workload):
    """{variant: median seconds} of (worker, variant) that take turns; those that do not take the geometry are left out."""
    fitting = []
    for worker, variant in contestants:
        try:
            worker.ask("prepare", kind="pass", variant=variant, steps=2, **workload)
        except WorkerError as error:
            if "ArgumentError" not in str(error) or variant not in ALGORITHMS:
                raise
        else:
            fitting.append((worker, variant))
    times = {variant: [] for _, variant in fitting}
    for _ in range(rounds):
        for worker, variant in fitting:
            times[variant].append(worker.ask("time", variant=variant, seconds=seconds))
    for worker in {id(worker): worker for worker, _ in contestants}.values():
        worker.ask("drop")
    return {variant: statistics.median(found) for variant, found in times.items()}


def report(rows, title, worst):
    """Markdown: geometric means by kind and pass, and the worst rows, which are (ratio, kind, direction, Conv, text)."""
    groups = {(kind, direction): [row[0] for row in rows if row[1:3] == (kind, direction)] for _, kind, direction, *_ in rows}
    names = dict.fromkeys(kind for kind, _ in groups)
    lines = [[kind, *(f"{geometric_mean(groups[kind, direction]):.2f}" for direction in PASSES)] for kind in names]
    every = [row[0] for row in rows]
    below = sum(ratio < 1 for ratio in every)
    heads = ["convolution", "forward", "input gradient", "weight gradient"]
    rows = sorted(rows, key=lambda row: row[0])[:worst]
    details = [[f"{ratio:.2f}", kind, direction, text, *map(str, conv)] for ratio, kind, direction, conv, text in rows]
    return (
        f"{title}: {len(every)} passes, geometric mean {geometric_mean(every):.3f}, "
        f"{below} of them below 1, the lowest {min(every):.2f}.\n\n"
        + table(heads, lines)
        + "\n"
        + table(["ratio", "kind", "pass", "ms", *Conv._fields], details)
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="benchmarks/survey.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=48, help="how many convolutions (48)")
    parser.add_argument("--seed", type=int, default=1, help="which (1)")
    parser.add_argument("--algorithms", action="store_true", help='compare what "auto" takes with every algorithm, not with PyTorch')
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (3)")
    parser.add_argument("--seconds", type=float, default=0.05, help="length of a turn (0.05)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each library (all processors)")
    parser.add_argument("--worst", type=int, default=20, help="how many of the worst are listed (20)")
    given = parser.parse_args(arguments)
    for name in ("count", "rounds", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be 1 or more, got {getattr(given, name)}")
    if not given.algorithms and importlib.util.find_spec("torch") is None:
        parser.error("PyTorch is not installed; --algorithms does without it")
    rows, other_side = [], contextlib.nullcontext() if given.algorithms else Worker("torch", given.threads)
    with Worker("fastconv", given.threads) as ours, other_side as theirs:
        for kind, conv in tqdm(draw(random.Random(given.seed), given.count), "survey", disable=None):
            for direction in PASSES:
                contestants = [(ours, variant) for variant in (ALGORITHMS if given.algorithms else ("auto",))]
                contestants += [(theirs, layout) for layout in LAYOUTS if theirs]
                times = turns(contestants, given.rounds, given.seconds, direction=direction, **conv._asdict())
                own = times.pop(taken(conv, direction) if given.algorithms else "auto")
                other = min(times.values(), default=own)
                ratio = min(1.0, other / own) if given.algorithms else other / own
                rows.append((ratio, kind, direction, conv, f"{own * 1e3:.3g} against {other * 1e3:.3g}"))
    title = 'The fastest algorithm\'s time over that of what "auto" takes' if given.algorithms else "PyTorch's time over fastconv's"
    print(report(rows, title, given.worst))


if __name__ == "__main__":
    main()

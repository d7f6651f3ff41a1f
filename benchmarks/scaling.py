"""How fastconv's cost grows: time per image over batch size, time over image size and channels, with one thread and with all, and memory.

    python benchmarks/scaling.py            some minutes; writes docs/images/scaling.png and prints the numbers as a table

Each number of threads has a process of its own, and they take turns. Nothing else should run on the machine.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder

from tqdm import tqdm  # noqa: E402

from benchmarks.worker import Worker  # noqa: E402

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODELS = ("lenet5", "mnist_cnn", "resnet20")
SIZES = (4, 7, 8, 14, 16, 28, 32, 56, 112)
CHANNELS = (4, 8, 16, 32, 64, 128, 256, 512)
ROUNDS, SECONDS = 3, 0.1


def conv(size, channels, pixels):
    """A 3x3 convolution of as many images as have about so many pixels together."""
    images = max(1, pixels // size**2)
    return {"input": [images, channels, size, size], "weight": [channels, channels, 3, 3], "padding": 1}


def series():
    """(title, x axis, y axis, {label: [(x, kind, workload, by how much its seconds are divided)]})."""
    steps = {name: [(n, "step", {"name": name, "size": n}, n) for n in BATCHES] for name in MODELS}
    yield "Training step, ms per image", "images in a batch", steps
    sizes = {f"{c} channels": [(s, "layer", conv(s, c, 1 << 14), 1) for s in SIZES] for c in (16, 64)}
    yield "3x3 convolution, three passes, 16,384 pixels, ms", "height and width of an image", sizes
    channels = {f"{s} x {s}": [(c, "layer", conv(s, c, 1 << 13), 1) for c in CHANNELS] for s in (8, 32)}
    yield "3x3 convolution, three passes, 8,192 pixels, ms", "input and output channels", channels


def measure(workers):
    """{title: (x axis, {label: {threads: [(x, ms)]}})}"""
    results = {}
    for title, axis, lines in series():
        results[title] = (axis, {})
        for label, points in tqdm(lines.items(), title, disable=None):
            times = {worker.threads: [] for worker in workers}
            for x, kind, workload, share in points:
                found = {worker.threads: [] for worker in workers}
                for worker in workers:
                    worker.ask("prepare", kind=kind, variant="auto", **workload)
                for _ in range(ROUNDS):
                    for worker in workers:
                        found[worker.threads].append(worker.ask("time", variant="auto", seconds=SECONDS))
                for worker in workers:
                    worker.ask("drop")
                    times[worker.threads].append((x, 1e3 * statistics.median(found[worker.threads]) / share))
            results[title][1][label] = times
    return results


def memory(threads):
    """{model: [(batch, MiB)]} of the highest resident memory of training steps, above that of the process before."""
    found = {}
    for name in tqdm(MODELS, "memory", disable=None):
        found[name] = []
        for n in BATCHES:
            with Worker("fastconv", threads) as worker:
                before, peak = worker.ask("memory", name=name, variant="auto", size=n)
            found[name].append((n, (peak - before) / 2**20))
    return found


def plot(results, found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, (title, (axis, lines)) in zip(panels, results.items(), strict=False):
        for k, (label, times) in enumerate(lines.items()):
            for threads, points in times.items():
                few = threads == min(times) < max(times)
                name = f"{label}, {threads} thread{'s' * (threads > 1)}"
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=f"C{k}", linestyle="--" if few else "-", label=name)
        axes.set(title=title, xlabel=axis, xscale="log", yscale="log")
    axes = figure.axes[3]
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(title="Memory of a training step, MiB", xlabel="images in a batch", xscale="log", yscale="symlog")
    axes.set_ylim(0)
    for axes in figure.axes:
        axes.set_xticks(ticks := sorted({x for line in axes.lines for x in line.get_xdata()}), [f"{x:g}" for x in ticks])
        axes.tick_params("x", labelrotation=45)  # 14 and 16 lie side by side
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # inside it would lie on lines
    figure.savefig(path, dpi=110)


def table(results, found):
    """The same in Markdown."""
    text = []
    for title, (axis, lines) in results.items():
        rows = [(f"{label}, {threads}", points) for label, times in lines.items() for threads, points in times.items()]
        text.append(markdown(title, f"{axis}; threads", rows, "{:.3g}"))
    return "\n".join([*text, markdown("Memory of a training step, MiB", "images in a batch", found.items(), "{:.0f}")])


def markdown(title, axis, rows, form):
    rows = list(rows)
    head = [axis, *(f"{x}" for x, _ in rows[0][1])]
    lines = [head, ["---"] * len(head), *([label, *(form.format(y) for _, y in points)] for label, points in rows)]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "scaling.png", help="the picture")
    output = parser.parse_args().output
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = [Worker("fastconv", threads) for threads in sorted({1, cores})]
    try:
        results = measure(workers)
    finally:
        for worker in workers:
            worker.__exit__()
    found = memory(cores) if Path("/proc/self/clear_refs").exists() else {}
    plot(results, found, output)
    print(table(results, found) if found else "Peak memory is measured on Linux only.")
    print(f"Written to {output}")


if __name__ == "__main__":
    main()

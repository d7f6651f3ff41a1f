"""What `compare.py` has measured, as Markdown and as a picture, with every goal and whether it is met."""

import contextlib
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
from pathlib import Path

from benchmarks import rounds
from benchmarks.workloads import CONVOLUTIONS, MODELS, PASSES

LAYOUTS = ("nchw", "channels_last")
TINY = 4 << 20  # bytes
BUSY = 0.5  # load
STEP_GOALS = {
    "lecture": 4.0,
    "digits_cnn": 5.0,
    "lenet5": 5.0,
    "mnist_cnn": 2.5,
    "vgg_cifar": 2.2,
    "resnet20": 2.0,
    "resnet18": 2.0,
    "mobilenet": 1.5,
}


def machine():
    """Processor, cores, vectors and matrix registers of this machine."""
    from fastconv import get_amx
    from fastconv.kernels.processor import VECTOR_BYTES

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
    cores = sum(line.startswith("processor") for line in lines)
    system = f"{platform.system()}, Python {platform.python_version()}"
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": cores,
        "vector_bits": VECTOR_BYTES * 8,
        "matrices": get_amx(),
        "system": system,
    }


def load():
    """How many processes wanted to run in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions():
    """What was measured: the libraries, and the commit of this checkout."""
    import fastconv

    found = {"fastconv": fastconv.__version__}
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass  # an unpacked archive is no checkout
    for name in ("numba", "llvmlite", "numpy", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def seconds(row, variant):
    return statistics.median(row["seconds"][variant])


def torch_seconds(row):
    """PyTorch's better layout; None where it was not measured."""
    return min((seconds(row, layout) for layout in LAYOUTS if layout in row["seconds"]), default=None)


def ratio(row, variant="auto"):
    """PyTorch's time over fastconv's; None where either was not measured or the results differ."""
    theirs = torch_seconds(row)
    return None if theirs is None or variant not in row["seconds"] or variant in row["wrong"] else theirs / seconds(row, variant)


def choice(row):
    """Time of the algorithm that "auto" takes over that of the fastest; None where it, or others, were not measured.

    It was timed by its own name: two names of one algorithm may differ by a tenth in somebody else's busy seconds.
    """
    named = {v: seconds(row, v) for v in row["seconds"] if v not in ("auto", *LAYOUTS)}
    return named[row["taken"]] / min(named.values()) if len(named) > 1 and row["taken"] in named else None


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def number(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def line(row):
    """One workload in one line, as it is shown while measuring."""
    parts = []
    for variant in row["seconds"]:
        text = f"{variant} {number(seconds(row, variant) * 1e3)} ms"
        if variant not in LAYOUTS:
            if row.get("flops"):
                text += f" {row['flops'] / seconds(row, variant) * 1e-9:.0f} GFLOP/s"
            if variant in row["wrong"]:
                text += f" WRONG: error {row['error'][variant]:.0e}"
            elif ratio(row, variant):
                text += f" x{ratio(row, variant):.2f} (error {row['error'][variant]:.0e})"
        parts.append(text)
    return " ".join([row["name"], *filter(None, [row.get("direction")])]) + ": " + ", ".join(parts)


def goals(results):
    """(what, wanted, measured, met) of every goal whose work was measured."""
    found = []

    def at_least(what, wanted, values, combine=min):
        values = [v for v in values if v is not None]
        if values:
            found.append((what, f"{wanted:g} or more", combine(values), combine(values) >= wanted))

    def at_most(what, wanted, value, unit):
        found.append((what, f"{wanted:g}{unit} or less", value, value <= wanted))

    conv = results.get("conv", [])
    at_least("one convolution, the slowest of all", 1.0, [ratio(r) for r in conv])
    at_least("one convolution, geometric mean", 1.5, [ratio(r) for r in conv], geometric_mean)
    at_least("3x3, stride 1, 32 or more channels, geometric mean", 2.0, [ratio(r) for r in conv if is_dense_3x3(r["name"])], geometric_mean)
    chosen = [c for c in map(choice, conv) if c]
    if chosen:
        at_most('what "auto" takes in terms of the fastest algorithm, highest', 1.05, max(chosen), "")
    for row in results.get("steps", []):
        at_least(f"training step, {row['name']}", STEP_GOALS[row["name"]], [ratio(row)])
    at_least("direct, 64 or more channels, lowest share of the peak", 0.85, [r["gflops"] / r["limit"] for r in results.get("peak", [])])
    at_least("more threads, lowest speed-up of the large shapes", 1.9, [r["speedup"] for r in results.get("scaling", [])])
    if "start" in results:
        at_most("first step of a process, warm cache", 1, results["start"]["fastconv warm"]["step"], " s")
        at_most("first step ever, cold cache", 15, results["start"]["fastconv cold"]["step"], " s")
    memory = [m for m in map(memory_ratio, results.get("memory", [])) if m]
    if memory:
        at_most("peak memory of a training step in terms of PyTorch's, highest", 1, max(memory), "")
    return found


def is_dense_3x3(name):
    conv = CONVOLUTIONS[name]
    return conv.weight[2:] == (3, 3) and conv.stride == conv.dilation == conv.groups == 1 and min(conv.weight[:2]) >= 32


def step_bytes(row, variant):
    return row[variant]["peak"] - row[variant]["before"]


def memory_ratio(row):
    """None also for tiny models: there the allocator's pages say more than the step."""
    theirs = min((step_bytes(row, layout) for layout in LAYOUTS if layout in row), default=0)
    return step_bytes(row, "auto") / theirs if theirs > TINY else None


def table(head, rows):
    """Markdown; columns in which no row says anything are left out."""
    keep = [k for k in range(len(head)) if any(row[k] != "" for row in rows)]
    lines = [[str(row[k]) for k in keep] for row in (head, ["---"] * len(head), *rows)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def cell(value, form="{:.2f}"):
    return "" if value is None else form.format(value)


def _passes(title, rows, variant):
    """A table of the three passes of each workload."""
    rows = {(r["name"], r["direction"]): r for r in rows if variant in r["seconds"]}
    if not rows:
        return f"## {title}\n\nIt takes none of these shapes.\n"
    lines = []
    for name in dict.fromkeys(name for name, _ in rows):
        cells = []
        for direction in PASSES:
            r = rows.get((name, direction))
            cells += ["", ""] if r is None else [number(seconds(r, variant) * 1e3), cell(ratio(r, variant))]
        lines.append([name, *cells])
    ratios = [v for v in (ratio(r, variant) for r in rows.values()) if v]
    summary = f"Geometric mean {geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}.\n" if ratios else ""
    head = ["shape", "forward, ms", "ratio", "input gradient, ms", "ratio", "weight gradient, ms", "ratio"]
    return f"## {title}\n\n{table(head, lines)}\n{summary}"


def _convolutions(results):
    for variant in results["settings"]["algorithms"]:
        yield _passes(f'Convolutions, algorithm "{variant}"', results["conv"], variant)


def _dense(results):
    yield _passes("Dense layers", results["dense"], "auto")


def _steps(results):
    rows = []
    for r in results["steps"]:
        theirs = [number(seconds(r, layout) * 1e3) if layout in r["seconds"] else "" for layout in LAYOUTS]
        ours = number(seconds(r, "auto") * 1e3)
        rows.append([r["name"], MODELS[r["name"]].input[0], ours, *theirs, cell(ratio(r)), STEP_GOALS[r["name"]] if ratio(r) else ""])
    head = ["model", "batch", "fastconv, ms", "PyTorch NCHW, ms", "PyTorch channels_last, ms", "ratio", "goal"]
    yield "## Training steps\n\nForward, loss, backward, SGD with momentum.\n\n" + table(head, rows)


def _start(results):
    rows = [[name, f"{t['import']:.2f}", f"{t['step']:.2f}"] for name, t in results["start"].items()]
    yield "## Start\n\nSeconds from the start of Python, LeNet-5.\n\n" + table(["process", "imported", "first step done"], rows)


def _memory(results):
    rows = []
    for r in results["memory"]:
        grown = [f"{step_bytes(r, v) / 2**20:.1f}" if v in r else "" for v in ("auto", *LAYOUTS)]
        rows.append([r["name"], *grown, cell(memory_ratio(r))])
    head = ["model", "fastconv", "PyTorch NCHW", "PyTorch channels_last", "fastconv / PyTorch"]
    yield "## Memory\n\nHighest resident MiB of building and training a model, above the process with its code loaded.\n\n" + table(
        head, rows
    )


def _peak(results):
    rows = [
        [r["name"], r["direction"], f"{r['gflops']:.0f}", f"{r['limit']:.0f}", f"{r['gflops'] / r['limit']:.0%}"] for r in results["peak"]
    ]
    head = ["shape", "pass", "GFLOP/s", "multiply-adds in registers, GFLOP/s", "share"]
    yield "## Direct against the peak\n\n" + table(head, rows)


def _scaling(results):
    few, many = results["settings"]["threads"]
    rows = [[r["name"], r.get("direction", "training step"), f"{r['speedup']:.2f}"] for r in results["scaling"]]
    yield f"## {many} threads over {few}\n\n" + table(["work", "pass", "times faster"], rows)


SECTIONS = {
    "steps": _steps,
    "conv": _convolutions,
    "dense": _dense,
    "start": _start,
    "memory": _memory,
    "peak": _peak,
    "scaling": _scaling,
}


def markdown(results):
    """The whole report."""
    m, s = results["machine"], results["settings"]
    libraries = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    code = f"{m['vector_bits']}-bit vectors{', AMX' if m['matrices'] else ''}"
    where = f"{m['cpu']} ({m['architecture']}), {m['cores']} cores, {code}; {m['system']}; {libraries}."
    how = f"float32, {s['threads'][-1]} threads; medians of {s['rounds']} turns of {s['seconds']} s; {results['took'] / 60:.0f} minutes."
    meaning = "A ratio is PyTorch's time (the better of NCHW and channels_last, eager) over fastconv's."
    parts = ["# fastconv against PyTorch" if s["with_torch"] else "# fastconv", where, how]
    parts += [meaning] if s["with_torch"] else ["PyTorch was not installed: there are no ratios."]
    if (results["load"] or 0) > BUSY:
        parts.append(f"**Something else ran on the machine (load {results['load']:.1f} at the start): no ground for a claim.**")
    parts += filter(None, [rounds.sentence(results["account"])])
    if s["quick"]:
        parts.append("**A quick look with few turns: no ground for a claim.**")
    rows = [[what, wanted, f"{value:.2f}", "yes" if met else "**no**"] for what, wanted, value, met in goals(results)]
    if rows:
        parts.append("## Goals\n\n" + table(["goal", "wanted", "measured", "met"], rows))
    for key, section in SECTIONS.items():
        if results.get(key):
            parts += section(results)
    return "\n\n".join(p.strip("\n") for p in parts) + "\n"


def plot(results, path):
    """The picture: ratios of convolutions and of training steps; fastconv's own speed where there is nothing to compare with."""
    from matplotlib.figure import Figure

    panels = [(key, draw) for key, draw in (("conv", _plot_convolutions), ("steps", _plot_steps)) if results.get(key)]
    if not panels:
        return
    rows = max(len(results["conv"]) / len(PASSES) if "conv" in results else 0, 10)
    figure = Figure(figsize=(6.5 * len(panels), 1.5 + 0.24 * rows), layout="constrained")
    for axes, (_, draw) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, results)
    m = results["machine"]
    figure.suptitle(f"{m['cpu']}, {results['settings']['threads'][-1]} threads", fontsize=10)
    figure.savefig(path, dpi=130)


def _frame(axes, names, title):
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(title, fontsize=10, pad=22)
    axes.grid(axis="x", which="both", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _times_faster(axes, values):
    low, high = min(*values, 1) / 1.15, max(*values, 1) * 1.15
    axes.set_xscale("log")
    ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xlabel("times faster than PyTorch")


def _plot_convolutions(axes, results):
    rows = results["conv"]
    names = list(dict.fromkeys(r["name"] for r in rows))
    compared = results["settings"]["with_torch"]
    variant = results["settings"]["algorithms"][0]
    _frame(axes, names, f"convolutions ({variant})")
    styles = {"forward": ("o", "#1f77b4"), "backward_input": ("^", "#d95f02"), "backward_weight": ("s", "#1b9e77")}
    points = []
    for direction, (marker, colour) in styles.items():
        here = [r for r in rows if r["direction"] == direction and variant in r["seconds"] and variant not in r["wrong"]]
        values = [ratio(r, variant) if compared else r["flops"] / seconds(r, variant) * 1e-9 for r in here]
        axes.plot(values, [names.index(r["name"]) for r in here], marker, color=colour, label=direction.replace("_", " "), markersize=5)
        points += values
    if compared and points:
        mean = geometric_mean(points)
        axes.axvline(mean, color="#1f77b4", linestyle=":", label=f"geometric mean {mean:.2f}")
        _times_faster(axes, points)
    else:
        axes.set_xlabel("GFLOP/s")
    axes.legend(
        fontsize=8, loc="lower left", ncols=4, bbox_to_anchor=(0, 1), borderaxespad=0.2, frameon=False, handletextpad=0.2, columnspacing=1
    )


def _plot_steps(axes, results):
    rows = [r for r in results["steps"] if "auto" not in r["wrong"]]
    compared = results["settings"]["with_torch"]
    values = [ratio(r) if compared else 1 / seconds(r, "auto") for r in rows]
    _frame(axes, [r["name"] for r in rows], "training steps")
    axes.barh(range(len(rows)), [v - 1 for v in values] if compared else values, left=1 if compared else 0, color="#1f77b4", height=0.6)
    for k, value in enumerate(values):
        axes.text(1.01, k, f"{value:.3g}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    if compared and rows:
        marks = [STEP_GOALS[r["name"]] for r in rows]
        axes.plot(marks, range(len(rows)), "|", color="#d95f02", markersize=16, markeredgewidth=2, label="goal")
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, frameon=False, markerscale=0.5)
        _times_faster(axes, values + marks)
    else:
        axes.set_xscale("log")
        axes.set_xlabel("steps per second")

"""Measures fastconv against PyTorch: the ratios of the goals, and every other number that a claim about speed rests on.

    python benchmarks/compare.py                    everything, a quarter of an hour on two cores, more if they are disturbed
    python benchmarks/compare.py --conv --filter 3x3 --algorithms auto,im2col
    python benchmarks/compare.py --steps --threads 1
    python benchmarks/compare.py --quick            a few shapes, few rounds: a look, not a result

Each library runs in processes of its own, which take turns: a chunk of one, then the same chunk of the other, for several rounds, and
the median over rounds counts; a round in which the machine is slower than it can be is measured again. PyTorch's time is the better of
its two memory layouts. Results are compared with each other before any time is taken. Without PyTorch fastconv is measured alone.
Nothing else should run on the machine.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    sys.path[0] = str(ROOT)  # run as a script, it was this file's folder; asv imports this file too and must keep its own path

from benchmarks import report, startup  # noqa: E402
from benchmarks.rounds import Rounds  # noqa: E402
from benchmarks.side_fastconv import taken  # noqa: E402
from benchmarks.side_torch import LAYOUTS  # noqa: E402
from benchmarks.worker import Worker, WorkerError  # noqa: E402
from benchmarks.workloads import ALGORITHMS, CONVOLUTIONS, LINEARS, MODELS, PASSES, REPRESENTATIVE  # noqa: E402

GROUPS = ("conv", "dense", "steps", "start", "memory", "peak")
COUNTED = {"conv": CONVOLUTIONS, "dense": LINEARS}  # workloads that know how many operations they take
TOLERANCE = {"conv": 1e-4, "dense": 1e-4, "step": 1e-3}  # of the largest number; of the losses of three steps
MANY = 64  # channels from which on direct is held against the peak
LARGE = 1e9  # floating-point operations from which on a shape must scale with threads


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conv", action="store_true", help="one convolution: 30 shapes, three passes")
    parser.add_argument("--dense", action="store_true", help="one dense layer: eight shapes, three passes")
    parser.add_argument("--steps", action="store_true", help="training steps of the eight models")
    parser.add_argument("--start", action="store_true", help="import and first training step of a fresh process")
    parser.add_argument("--memory", action="store_true", help="peak memory of training steps")
    parser.add_argument("--peak", action="store_true", help="the direct algorithm as a share of the machine's peak")
    parser.add_argument("--threads", help="N, or FEW,MANY, which also measures how fastconv scales from one to the other")
    parser.add_argument("--algorithms", default="auto", help=f"of convolutions, comma-separated: auto,{','.join(ALGORITHMS)}")
    parser.add_argument("--filter", default="", help="only workloads whose name contains this")
    parser.add_argument("--rounds", type=int, help="turns of each library")
    parser.add_argument("--seconds", type=float, help="length of a turn")
    parser.add_argument("--quick", action="store_true", help="a few shapes and models, two rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of results.md, .json and .png")
    chosen = parser.parse_args()
    everything = not any(getattr(chosen, group) for group in GROUPS)
    for group in GROUPS:
        setattr(chosen, group, everything or getattr(chosen, group))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = chosen.threads or (f"1,{cores}" if everything and cores > 1 else f"{cores}")
    try:
        chosen.threads = sorted({int(n) for n in counts.split(",")})
    except ValueError:
        parser.error(f"--threads takes one or two numbers, got {counts!r}")
    if not 1 <= chosen.threads[0] <= chosen.threads[-1] <= cores or len(chosen.threads) > 2:
        parser.error(f"--threads takes one or two numbers from 1 to {cores}, got {counts!r}")
    chosen.algorithms = chosen.algorithms.split(",")
    if unknown := set(chosen.algorithms) - {"auto", *ALGORITHMS}:
        parser.error(f"unknown algorithms: {', '.join(sorted(unknown))}")
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 7)
    chosen.seconds = chosen.seconds or (0.02 if chosen.quick else 0.06)
    return chosen


class Comparison:
    """The workers, and what they have measured so far."""

    def __init__(self, chosen, folder):
        self.chosen, self.folder, self.rounds = chosen, folder, Rounds(chosen.rounds, chosen.seconds)
        self.with_torch = importlib.util.find_spec("torch") is not None
        self.results = {"settings": {**vars(chosen), "output": chosen.output.name, "with_torch": self.with_torch}, "load": report.load()}

    def names(self, table, quick):
        names = [name for name in table if self.chosen.filter in name]
        return [name for name in names if name in quick] if self.chosen.quick else names

    def worker(self, side, threads=None):
        return Worker(side, threads or self.chosen.threads[-1])

    def contestants(self, ours, theirs, variants):
        """(label, worker, variant) of everyone who takes turns at a workload."""
        return [("fastconv", ours, v) for v in variants] + ([("torch", theirs, v) for v in LAYOUTS] if theirs else [])

    def measure(self, kind, ours, theirs, variants, steps=1, **workload):
        """One workload: results compared, then times; variants that do not fit are left out."""
        files, contestants, refused = {}, [], {}
        for label, worker, variant in self.contestants(ours, theirs, variants):
            file = self.folder / f"{variant}.npy"
            try:
                worker.ask("prepare", kind=kind, variant=variant, save=str(file), steps=steps, **workload)
            except WorkerError as error:
                if label == "torch" or "ArgumentError" not in str(error) or variant == "auto":
                    raise
                refused[variant] = str(error)
            else:
                contestants.append((label, worker, variant))
                files[variant] = file
        errors = {v: relative_error(files[v], files[LAYOUTS[0]]) for v in files if theirs and v not in LAYOUTS}
        found = self.rounds.turns([(worker, variant) for _, worker, variant in contestants], ours)
        times = {variant: column for (_, _, variant), column in zip(contestants, found, strict=True)}
        for worker in filter(None, (ours, theirs)):
            worker.ask("drop")
        for file in files.values():
            file.unlink()
        return {
            **workload,
            "seconds": times,
            "error": errors,
            "refused": refused,
            "wrong": [v for v, e in errors.items() if not e <= TOLERANCE[kind]],
        }

    def rows(self, title, kind, variants, workloads, steps=1):
        """The results of all `workloads` of one kind, with a line for each as it comes."""
        rows = []
        with self.worker("fastconv") as ours, self.worker("torch") if self.with_torch else NoWorker() as theirs:
            for workload in tqdm(workloads, title, disable=None):
                row = self.measure(kind, ours, theirs, variants, steps, **workload)
                row["flops"] = COUNTED[kind][row["name"]].flops if kind in COUNTED else None
                rows.append(row)
                tqdm.write(report.line(row))
        return rows

    def passes(self, table, quick):
        """All passes of all workloads of a table."""
        return [{"name": name, "direction": direction} for name, direction in itertools.product(self.names(table, quick), PASSES)]

    def conv(self):
        rows = self.rows("convolutions", "conv", self.chosen.algorithms, self.passes(CONVOLUTIONS, REPRESENTATIVE))
        self.results["conv"] = [{**row, "taken": taken(CONVOLUTIONS[row["name"]], row["direction"])} for row in rows]

    def dense(self):
        self.results["dense"] = self.rows("dense layers", "dense", ["auto"], self.passes(LINEARS, ("digits 64-10", "lenet 400-120")))

    def steps(self):
        names = self.names(MODELS, ("lecture", "digits_cnn", "lenet5", "mnist_cnn"))
        self.results["steps"] = self.rows("training steps", "step", ["auto"], [{"name": name} for name in names], steps=3)

    def start(self):
        """Cold once (twice would not teach more), warm in turns with PyTorch."""
        cache = self.folder / "cache"
        found = {"fastconv cold": [startup.first_step("fastconv", cache, [ROOT])], "fastconv warm": [], "torch": []}
        for _ in tqdm(range(self.chosen.rounds), "first steps", disable=None):
            found["fastconv warm"].append(startup.first_step("fastconv", cache, [ROOT]))
            if self.with_torch:
                found["torch"].append(startup.first_step("torch"))
        self.results["start"] = {
            k: dict(zip(("import", "step"), np.median(v, axis=0).tolist(), strict=True)) for k, v in found.items() if v
        }

    def memory(self):
        if not Path("/proc/self/clear_refs").exists():
            print("Peak memory is measured on Linux only.")
            return
        rows = []
        for name in tqdm(self.names(MODELS, ("lenet5", "mnist_cnn")), "memory", disable=None):
            row = {"name": name}
            with self.worker("fastconv") as worker:  # the compiler takes more memory than the step: it runs in another process
                worker.ask("prepare", kind="step", variant="auto", name=name)
            for side, variant in [("fastconv", "auto")] + [("torch", layout) for layout in LAYOUTS if self.with_torch]:
                with self.worker(side) as worker:
                    row[variant] = dict(zip(("before", "peak"), worker.ask("memory", name=name, variant=variant), strict=True))
            rows.append(row)
        self.results["memory"] = rows

    def peak(self):
        """Direct on shapes with many channels, in turns with a loop of nothing but multiply-adds."""
        rows = []
        names = [n for n in self.names(CONVOLUTIONS, REPRESENTATIVE) if min(CONVOLUTIONS[n].input[1], *CONVOLUTIONS[n].weight[:2]) >= MANY]
        with self.worker("fastconv") as worker:
            for name, direction in tqdm(list(itertools.product(names, PASSES)), "share of peak", disable=None):
                worker.ask("prepare", kind="conv", variant="direct", name=name, direction=direction)
                limits, times = [], []
                for _ in range(self.chosen.rounds):
                    limits.append(worker.ask("peak"))
                    times.append(worker.ask("time", variant="direct", seconds=self.chosen.seconds))
                gflops = CONVOLUTIONS[name].flops / statistics.median(times) * 1e-9
                rows.append({"name": name, "direction": direction, "gflops": gflops, "limit": statistics.median(limits)})
        self.results["peak"] = rows

    def scaling(self):
        """fastconv with few threads and with many, in turns."""
        few, many = self.chosen.threads
        rows = []
        names = [n for n in self.names(CONVOLUTIONS, REPRESENTATIVE) if CONVOLUTIONS[n].flops >= LARGE]
        workloads = [("conv", {"name": n, "direction": d}) for n, d in itertools.product(names, PASSES)]
        workloads += [
            ("step", {"name": n}) for n in self.names(MODELS, ("mnist_cnn",)) if n in ("mnist_cnn", "vgg_cifar", "resnet18", "mobilenet")
        ]
        with self.worker("fastconv", few) as one, self.worker("fastconv", many) as other:
            for kind, workload in tqdm(workloads, f"{few} and {many} threads", disable=None):
                for worker in (one, other):
                    worker.ask("prepare", kind=kind, variant="auto", **workload)
                by_few, by_many = map(statistics.median, self.rounds.turns([(one, "auto"), (other, "auto")], other))
                for worker in (one, other):
                    worker.ask("drop")
                rows.append({**workload, "speedup": by_few / by_many})
        self.results["scaling"] = rows

    def run(self):
        for group in GROUPS:
            if getattr(self.chosen, group):
                getattr(self, group)()
        if len(self.chosen.threads) == 2:
            self.scaling()


class NoWorker:
    """PyTorch's place where there is no PyTorch."""

    def __enter__(self):
        return None

    def __exit__(self, *exception):
        pass


def relative_error(file, reference):
    """Largest difference of two .npy files, in terms of the largest number of the second."""
    result, expected = np.load(file), np.load(reference)
    if result.shape != expected.shape:
        return float("inf")
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def main():
    chosen = options()
    chosen.output.mkdir(parents=True, exist_ok=True)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(chosen, Path(folder))
        if not comparison.with_torch:
            print("PyTorch is not installed: fastconv is measured alone, and there are no ratios.")
        comparison.run()
    results = comparison.results
    results["machine"], results["versions"] = report.machine(), report.versions()
    results["account"] = comparison.rounds.account()
    results["took"] = time.time() - began
    (chosen.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (chosen.output / "results.md").write_text(report.markdown(results))
    (chosen.output / "results.png").unlink(missing_ok=True)  # of an earlier run: there may be nothing to draw today
    report.plot(results, chosen.output / "results.png")
    print(report.markdown(results))
    print(f"Written to {chosen.output}: {', '.join(sorted(p.name for p in chosen.output.glob('results.*')))}")
    if wrong := [row for kind in ("conv", "dense", "steps") for row in results.get(kind, []) if row["wrong"]]:
        sys.exit("Results differ from PyTorch's; their times are not to be trusted: " + "; ".join(report.line(row) for row in wrong))


if __name__ == "__main__":
    main()

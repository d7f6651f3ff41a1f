"""One library in a process of its own, told over a pipe what to prepare and when to time it: `python -m benchmarks.worker SIDE THREADS`.

Two libraries in one process would share caches, allocators and OpenMP pools; two processes that run by turns share nothing.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.workloads import STEADY

ROOT = Path(__file__).resolve().parents[1]
FEWEST, MOST = 3, 2000  # timed calls of one chunk


class WorkerError(RuntimeError):
    """A worker ended, or could not do what it was asked."""


class Worker:
    """The driver's end of the pipe."""

    def __init__(self, side, threads):
        self.side, self.threads = side, threads
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", side, str(threads)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do, **arguments):
        """Have `do` done; its answer, or WorkerError."""
        try:
            self.process.stdin.write(json.dumps([do, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.side}'s process ended with code {self.process.wait()} when asked to {do} {arguments}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.side}, {do} {arguments}: {answer['error']}")
        return answer.get("value")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Bench:
    """The worker's end: prepared workloads by the name of their variant."""

    def __init__(self, side, threads):
        self.side = importlib.import_module(f"benchmarks.side_{side}")
        self.threads = threads
        self.prepared = {}
        self.side.configure(threads)

    def prepare(self, kind, variant, save=None, steps=1, **workload):
        """Keep a workload under `variant` and run it `steps` times; with `save` the results go into that .npy file.

        Training steps go on until they are steady.
        """
        run = getattr(self.side, f"prepare_{kind}")(variant=variant, **workload)
        results = [self.side.as_numpy(run()) for _ in range(steps)]
        for _ in range(steps, STEADY if kind == "step" else 0):
            run()
        if save:
            np.save(save, np.ascontiguousarray(results))
        self.prepared[variant] = run

    def time(self, variant, seconds):
        """Median time in s of the calls that fit into `seconds`, after one that fills the caches again."""
        run, times = self.prepared[variant], []
        run()
        end = time.perf_counter() + seconds
        start = 0.0
        while len(times) < FEWEST or (start < end and len(times) < MOST):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def drop(self):
        self.prepared.clear()

    def peak(self):
        """GFLOP/s of a loop that only multiplies and adds in registers, on all threads of this worker."""
        from benchmarks import peak

        return peak.gflops(self.threads)

    def distance(self):
        """ns in which a line of memory goes from one processor to another and back; 0 where nobody can tell."""
        from benchmarks import distance

        return distance.farthest(self.threads)

    def memory(self, name, variant, size=None):
        """Bytes: (resident before, highest while a model is built and trained until steps are steady); code is loaded beforehand."""
        small = self.side.prepare_step(name, variant, size=2)
        small()
        before = reset_peak_memory()
        run = self.side.prepare_step(name, variant, size=size)
        for _ in range(STEADY):
            run()
        return before, status_bytes("VmHWM")


def status_bytes(key):
    """An entry of Linux's account of this process' memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise WorkerError(f"/proc/self/status has no {key}")


def reset_peak_memory():
    """Set the highest resident size to the present one, and return it."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def main(side, threads):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the answers
    bench = Bench(side, int(threads))
    for line in sys.stdin:
        do, arguments = json.loads(line)
        try:
            answer = {"value": getattr(bench, do)(**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

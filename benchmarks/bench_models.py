"""asv: training steps of the models, and the memory that they take."""

import math
import subprocess
import sys
from pathlib import Path

from benchmarks.side_fastconv import prepare_step
from benchmarks.workloads import MODELS, STEADY


class TrainingSteps:
    """Forward, loss, backward, SGD with momentum."""

    params = (list(MODELS),)
    param_names = ("model",)
    rounds = 1

    def setup(self, model):
        self.step = prepare_step(model)
        if not all(math.isfinite(self.step()) for _ in range(STEADY)):
            raise AssertionError(f"{model}: the loss is not finite")

    def time_step(self, model):
        self.step()


COMPILE = """
import sys
sys.path.append(sys.argv[1])  # behind the installed fastconv: a checkout must not come before it
from benchmarks.side_fastconv import prepare_step
prepare_step(sys.argv[2])()
"""


class Memory:
    """Of the whole process; `peakmem_baseline` is what it takes before the batch comes: interpreter, Numba and compiled code."""

    params = (list(MODELS),)
    param_names = ("model",)

    def setup(self, model):
        # the compiler alone takes 180 MB: it runs elsewhere, here its code is only loaded
        subprocess.run([sys.executable, "-c", COMPILE, str(Path(__file__).resolve().parents[1]), model], check=True)
        prepare_step(model, size=2)()

    def peakmem_baseline(self, model):
        pass

    def peakmem_step(self, model):
        step = prepare_step(model)
        for _ in range(STEADY):
            step()

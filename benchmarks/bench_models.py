"""asv: training steps of the models, and the memory that they take."""

import math

from benchmarks.side_fastconv import prepare_step
from benchmarks.workloads import MODELS


class TrainingSteps:
    """Forward, loss, backward, SGD with momentum."""

    params = (list(MODELS),)
    param_names = ("model",)
    rounds = 1

    def setup(self, model):
        self.step = prepare_step(model)
        if not math.isfinite(self.step()):
            raise AssertionError(f"{model}: the loss is not finite")

    def time_step(self, model):
        self.step()


class Memory:
    """Of the whole process; `peakmem_baseline` is what it takes before the batch comes: interpreter, compiler and compiled code."""

    params = (list(MODELS),)
    param_names = ("model",)

    def setup(self, model):
        prepare_step(model, size=2)()  # compiles, when need be, before the step that counts; the compiler alone takes 180 MB

    def peakmem_baseline(self, model):
        pass

    def peakmem_step(self, model):
        step = prepare_step(model)
        for _ in range(2):
            step()

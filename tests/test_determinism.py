"""The same bits with 1, 2 and 4 threads, serially and in parallel, from two Python threads at once and under every threading layer."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import ops
import pytest
from checks import assert_same_bits, distinct

from fastconv import functional as F
from fastconv import set_num_threads
from fastconv.kernels import jit

ALGORITHMS = ("loops", "direct", "im2col", "auto")
# Every operation in sizes that are worth several threads, with tails of vectors and blocks; the batch is 19.
CONVOLUTIONS = [
    ops.conv("plain", 17, 14, 28, 33, (3, 3), padding=1),
    ops.conv("strided", 6, 29, 28, 17, (5, 4), stride=(2, 3), padding=2),
    ops.conv("dilated", 16, 14, 16, 31, (3, 3), dilation=2, padding=2),
    ops.conv("pointwise", 65, 14, 7, 33, (1, 1)),
    ops.conv("grouped", 30, 14, 16, 33, (3, 3), groups=3, padding=1),
    ops.conv("grouped_by_4", 64, 14, 19, 64, (3, 3), groups=16, padding=1),
    ops.conv("depthwise", 65, 16, 28, 65, (3, 3), groups=65, padding=1),
    ops.conv("depthwise_strided", 33, 28, 29, 33, (3, 3), groups=33, stride=2),
    ops.conv_transpose("strided", 17, 7, 14, 15, (3, 3), stride=2, padding=1, output_padding=1),
]
OTHERS = [
    ops.max_pool("halving", 17, 28, 28, kernel_size=2),
    ops.max_pool("overlapping", 33, 28, 14, kernel_size=3, stride=2, padding=1),
    ops.avg_pool("overlapping", 33, 28, 14, kernel_size=3, stride=2, padding=1, count_include_pad=False),
    ops.adaptive_pool("global", 65, 14, 14, 1),
    ops.adaptive_pool("overlapping", 65, 14, 14, (5, 3)),
    ops.linear("wide", 401, outputs=127),
    ops.linear("tall", 40, 65, outputs=33),
    ops.batch_norm("training", 33, 28, 14, training=True),
    ops.batch_norm("evaluation", 33, 28, 14, training=False),
    *(ops.activation(name, 33, 28, 14) for name in ("relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh")),
    ops.activation("gelu-tanh", 33, 28, 14, approximate="tanh"),
    ops.softmax("softmax-last", 17, 401, dim=-1),
    ops.softmax("softmax-channels", 33, 28, 14, dim=1),
    ops.softmax("log_softmax-last", 17, 401, dim=-1),
    ops.loss("cross_entropy", {"input": ops.values(401, 21), "target": ops.labels(401, 21)}),
    ops.loss("cross_entropy-none", {"input": ops.values(401, 21), "target": ops.labels(401, 21)}, reduction="none"),
    ops.loss("binary_cross_entropy", {"input": ops.probabilities(33, 401), "target": ops.probabilities(33, 401)}),
    ops.loss("binary_cross_entropy_with_logits", {"input": ops.values(33, 401), "target": ops.probabilities(33, 401)}),
    ops.loss("mse_loss", {"input": ops.values(99, 401), "target": ops.values(99, 401)}),
]


class WithAlgorithm:
    """fastconv.functional with convolutions by one algorithm."""

    def __init__(self, algorithm):
        self.algorithm = algorithm

    def __getattr__(self, name):
        return lambda *arguments, **options: getattr(F, name)(*arguments, **options, algorithm=self.algorithm)


CASES = [(op, WithAlgorithm(a), f"{op.name}-{a}") for op in CONVOLUTIONS for a in ALGORITHMS] + [(op, F, op.name) for op in OTHERS]
each = pytest.mark.parametrize(("op", "module"), [case[:2] for case in CASES], ids=[case[2] for case in CASES])


def passes(op, module, scale=1, dtype=np.float32):
    """Output and all gradients, of the same numbers at every call."""
    rng = np.random.default_rng(7)
    arguments = {name: a * dtype(scale) if a.dtype.kind == "f" else a for name, a in op.draw(rng, dtype, batch=19).items()}
    output = np.asarray(op.forward(module, **arguments))
    grad_output = distinct(rng, output.shape, dtype) * dtype(scale)
    return {"output": output, **op.backward(module, grad_output, **arguments)}


class Launches:
    """Counts the kernels that start in the parallel form."""

    def __init__(self, monkeypatch):
        self.parallel = 0
        call = jit.Kernel.__call__

        def counting(kernel, work, *arguments):
            self.parallel += work >= jit.SERIAL_BELOW
            return call(kernel, work, *arguments)

        monkeypatch.setattr(jit.Kernel, "__call__", counting)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@each
def test_any_number_of_threads_gives_the_same_bits(op, module, dtype, monkeypatch):
    launches = Launches(monkeypatch)
    set_num_threads(1)
    expected = passes(op, module, dtype=dtype)
    assert launches.parallel, "too small to run in parallel: the test would show nothing"
    for threads in (2, 4):
        set_num_threads(threads)
        for name, value in passes(op, module, dtype=dtype).items():
            assert_same_bits(value, expected[name], f"{name}, {threads} threads")


@each
def test_the_serial_form_gives_the_same_bits(op, module, monkeypatch):
    expected = passes(op, module)
    monkeypatch.setattr(jit, "SERIAL_BELOW", 1 << 62)
    for name, value in passes(op, module).items():
        assert_same_bits(value, expected[name], name)


@each
def test_denormal_numbers_are_the_same_on_every_thread(op, module):
    """Whether they are flushed to zero must not depend on the thread that computes: products of 1e-20 are denormal."""
    set_num_threads(1)
    expected = passes(op, module, 1e-20)
    for threads in (2, 4):
        set_num_threads(threads)
        for name, value in passes(op, module, 1e-20).items():
            assert_same_bits(value, expected[name], f"{name}, {threads} threads")


def test_dropout_draws_the_same_mask_at_any_number_of_threads():
    x = np.ones((64, 33, 28, 14), np.float32)
    set_num_threads(1)
    expected = F.dropout(x, 0.3, rng=np.random.default_rng(5))
    set_num_threads(4)
    assert_same_bits(F.dropout(x, 0.3, rng=np.random.default_rng(5)), expected)


# --- other processes -----------------------------------------------------------------------------------------------------


def digests():
    """A line for every operation and algorithm: a hash of all of its bits."""
    lines = []
    for op, module, name in CASES:
        bits = hashlib.sha256(b"".join(value.tobytes() for value in passes(op, module).values()))
        lines.append(f"{name} {bits.hexdigest()}")
    return lines


CONCURRENT = """
import sys, threading
import test_determinism
from fastconv.kernels import jit
results = [[], []]
def run(i):
    results[i] += test_determinism.digests()
threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
for t in threads: t.start()
for t in threads: t.join()
assert results[0] == results[1], "two Python threads disagree"
print(jit.threading_layer())
print(*results[0], sep="\\n")
"""


def layers():
    """The threading layers that this machine has."""
    found = ["workqueue"]
    for layer, module in (("omp", "omppool"), ("tbb", "tbbpool")):
        try:
            __import__(f"numba.np.ufunc.{module}")
            found.append(layer)
        except ImportError:
            continue
    return found


@pytest.mark.parametrize("layer", layers())
def test_two_python_threads_under_every_threading_layer(layer):
    """Both call everything at once, with 3 threads for the kernels, and get this process' bits."""
    environment = {
        **os.environ,
        "NUMBA_THREADING_LAYER": layer,
        "NUMBA_NUM_THREADS": "3",
        "PYTHONPATH": os.pathsep.join([*map(str, (Path(F.__file__).parents[2], Path(__file__).parent)), os.environ.get("PYTHONPATH", "")]),
    }
    result = subprocess.run([sys.executable, "-c", CONCURRENT], env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    used, *lines = result.stdout.split("\n")[:-1]
    assert used == layer
    assert lines == digests()


SPINS = """
import os
from fastconv.kernels import jit
jit.threading_layer()
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.skipif("omp" not in layers(), reason="no OpenMP")
@pytest.mark.parametrize(
    ("own", "expected"), [({}, jit.SPINS), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")]
)
def test_waiting_threads_sleep_soon(own, expected):
    """GNU OpenMP says itself how often its threads look for work; the user's own wish counts, and the environment stays as it was."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= {"PYTHONPATH": str(Path(F.__file__).parents[2]), "NUMBA_THREADING_LAYER": "omp", "OMP_DISPLAY_ENV": "verbose", **own}
    result = subprocess.run([sys.executable, "-c", SPINS], env=environment, capture_output=True, text=True, timeout=600, check=True)
    if "GOMP_SPINCOUNT" not in result.stderr:
        pytest.skip("another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{expected}'" in result.stderr
    assert result.stdout.strip() == str(own.get("GOMP_SPINCOUNT"))

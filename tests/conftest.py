"""What all tests share: the seed, the number of threads, memory full of NaN, hypothesis' profile."""

import os
import signal
import sys
import zlib

os.environ["NUMBA_NUM_THREADS"] = "4"  # before numba is imported: the determinism tests go up to 4 threads on any machine

import hypothesis
import numpy as np
import pytest

from fastconv import get_amx, memory, set_amx
from fastconv.kernels import jit

hypothesis.settings.register_profile("fastconv", derandomize=True, deadline=None, max_examples=20, database=None)
hypothesis.settings.load_profile("fastconv")


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name: stable from run to run, different from test to test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def without_amx():
    """Convolutions do without matrix registers: what tests say of the ways of vectors holds on all processors."""
    allowed = get_amx()
    set_amx(False)
    yield
    set_amx(allowed)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c():
    """A shell starts what runs in its background with Ctrl-C ignored, and so would be the processes that tests start and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def unwritten_memory():
    """What `memory.empty` gives holds NaN until it is written, so that nothing is right by what lay there before."""
    original = memory.empty

    def empty(shape, dtype):
        array = original(shape, dtype)
        array.reshape(-1).view(np.uint8).fill(255)
        return array

    users = [module for name, module in sys.modules.items() if name.startswith("fastconv.") and vars(module).get("empty") is original]
    with pytest.MonkeyPatch.context() as patch:
        for module in users:
            patch.setattr(module, "empty", empty)
        yield


@pytest.fixture(autouse=True)
def two_threads():
    """Every test starts with two threads: more than the machine has would only be slow."""
    jit.set_num_threads(2)


@pytest.fixture
def kernels_called(monkeypatch):
    """Names of the kernels that ran, as module.function."""
    called = set()
    original = jit.Kernel.__call__

    def call(self, work, *arguments):
        called.add(f"{self.__module__.rpartition('.')[2]}.{self.__name__}")
        return original(self, work, *arguments)

    monkeypatch.setattr(jit.Kernel, "__call__", call)
    return called

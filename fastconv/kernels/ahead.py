"""A second process that compiles some kernels while this one compiles others.

Numba compiles on one processor at a time, however many there are. What the second process has compiled comes to this one by the cache.
It starts with what is needed last. Where the two meet, the one that needs a kernel which the other has begun waits for it.
"""

import atexit
import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from importlib import import_module
from typing import NamedTuple

from fastconv.kernels import jit

POLL = 0.005
"""Seconds between two looks for what the other process compiles."""

PROGRAM = """
import pickle, sys
sys.path[:], folder, calls = pickle.load(sys.stdin.buffer)
from fastconv.kernels import ahead
ahead.compile_all(folder, pickle.loads(calls))
"""
"""The path comes first, since what follows is made of classes that are found on it."""

log = logging.getLogger("fastconv")


class Call(NamedTuple):
    """A kernel, in the form and for the types of one call."""

    module: str
    name: str
    form: str
    types: tuple

    def dispatcher(self):
        return getattr(getattr(import_module(self.module), self.name), self.form)

    def path(self):
        """Where the cache keeps it."""
        dispatcher = self.dispatcher()
        return dispatcher._cache.path(self.types, dispatcher.targetctx.codegen())


@contextlib.contextmanager
def recorded():
    """Within, this thread's kernels do not run: the context is a list that gets a `Call` for each of them."""
    calls, here, run = [], threading.get_ident(), jit.Kernel.__call__

    def record(kernel, work, *arguments):
        if threading.get_ident() != here:
            return run(kernel, work, *arguments)
        form = "serial" if work < jit.SERIAL_BELOW else "parallel"
        types = tuple(map(kernel.serial.typeof_pyval, arguments))
        calls.append(Call(kernel.__module__, kernel.__name__, form, types))
        return 0

    jit.Kernel.__call__ = record
    try:
        yield calls
    finally:
        jit.Kernel.__call__ = run


class Helper:
    """The other process."""

    def __init__(self, calls):
        self.begun = set()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._listen, daemon=True).start()
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            pickle.dump((sys.path, str(jit.cache_folder()), pickle.dumps(calls)), stdin)

    def _listen(self):
        with self.process.stdout as lines:
            for line in lines:
                self.begun.add(line.decode().strip())

    def at_work(self):
        return self.process.poll() is None

    def has_begun(self, path):
        return path.name in self.begun

    def wait(self, path):
        """Return when it has compiled what `path` is for, or has ended."""
        while not path.exists() and self.at_work():
            time.sleep(POLL)

    def end(self):
        if self.at_work():
            self.process.terminate()
            self.process.wait()


_helper = None


def can_help():
    """Whether there could be another process now: not with one processor or one thread, without a cache, or while there is one already."""
    if _helper is not None and _helper.at_work():
        return False
    if jit.get_num_threads() == 1 or "python" not in os.path.basename(sys.executable or "").lower():  # a program with Python inside it
        return False
    folder = jit.cache_folder()
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)


def compile_elsewhere(calls):
    """Have another process compile what the cache does not hold of `calls`, from the last to the first, when that is more than one."""
    global _helper
    missing = {call.path(): call for call in calls if not call.path().exists()}
    if len(missing) > 1:
        log.info("another process helps to compile %s", ", ".join(call.name for call in missing.values()))
        _helper = Helper(list(missing.values())[::-1])
        jit.coming.update(dict.fromkeys(missing, _helper))


def compile_all(folder, calls):
    """What the other process does: compile `calls` in their order, and say so.

    It ends where that would be for nothing: when its own options lead to another `folder` of the cache, or nothing can be written there.
    """
    warnings.simplefilter("ignore")  # the first process says so too
    if str(jit.cache_folder()) != folder:
        return
    for call in calls:
        if not call.path().exists():
            sys.stdout.write(f"{call.path().name}\n")
            sys.stdout.flush()
            call.dispatcher().compile(call.types)
            if not call.path().exists():
                return


@atexit.register
def _end():
    """What nobody waits for any more does not go on."""
    if _helper is not None:
        _helper.end()

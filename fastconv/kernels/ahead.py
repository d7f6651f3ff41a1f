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
from fastconv.kernels.host import Host

POLL = 0.005
"""Seconds between two looks for what the other process compiles."""

PATIENCE = 60.0
"""Seconds to wait for a function, of which the largest takes five to compile."""

PROGRAM = """
import sys
sys.path[:] = filter(None, sys.path)
import pickle
sys.path[:], folder, calls = pickle.load(sys.stdin.buffer)
from fastconv.kernels import ahead
ahead.compile_all(folder, pickle.loads(calls))
"""
"""Nothing comes from the folder that it is started in. The path is first, as what follows is made of classes that are found on it."""

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
    calls = []

    def record(run, kernel, work, *arguments):
        if isinstance(kernel, Host):
            return None
        form = "serial" if work < jit.SERIAL_BELOW else "parallel"
        types = tuple(map(kernel.serial.typeof_pyval, arguments))
        calls.append(Call(kernel.__module__, kernel.__name__, form, types))
        return 0

    with jit.intercepted(record):
        yield calls


class Other:
    """The process at the other end of two pipes. Each says which files of the cache it has begun to compile, and when it has done.

    Who needs what the other has begun waits for it. Neither can wait for the other at the same time: a function would have to call itself.
    """

    def __init__(self, source, sink):
        self.source, self.sink, self.begun, self.own = source, sink, set(), set()

    def say(self, what, path):
        """Say that `path` is "begun" or "done"."""
        (self.own.add if what == "begun" else self.own.discard)(path)
        with contextlib.suppress(OSError, ValueError):  # nobody is there any more, or the pipe is closed
            self.sink.write(f"{what} {path.name}\n".encode())
            self.sink.flush()

    def give_up(self):
        """Say that what has been begun here will not be finished."""
        for path in list(self.own):
            self.say("done", path)

    def listen(self):
        """Hear what the other process says, until it ends."""
        for line in self.source:
            what, _, name = line.decode().strip().partition(" ")  # it may end in the middle of a line
            (self.begun.add if what == "begun" else self.begun.discard)(name)
        self.begun.clear()

    def has_begun(self, path):
        return path.name in self.begun

    def wait(self, path):
        """Return when it has done with `path`, or has ended. It has to end when that takes too long."""
        last = time.monotonic() + PATIENCE
        while self.has_begun(path):
            if time.monotonic() > last:
                log.warning("the process that compiles meanwhile does not answer")
                self.end()
            time.sleep(POLL)

    def end(self):
        """Wait for nothing that it has begun."""
        self.begun.clear()


class Helper(Other):
    """The second process. It ends when it has compiled `calls`, when its input ends, as it does with this process, or by `end`."""

    def __init__(self, calls):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        super().__init__(self.process.stdout, self.process.stdin)
        try:
            pickle.dump((sys.path, str(jit.cache_folder()), pickle.dumps(calls)), self.process.stdin)
            self.process.stdin.flush()
            threading.Thread(target=self.listen, daemon=True).start()
        except BaseException:
            self.process.kill()
            with self.process:  # closes its pipes
                raise

    def listen(self):
        with self.process:
            super().listen()

    def at_work(self):
        return self.process.poll() is None

    def has_failed(self):
        """Whether it has ended before its list did."""
        return self.process.poll() not in (None, 0)

    def end(self):
        super().end()
        if self.at_work():
            self.process.kill()
            self.process.wait()


class Later(BaseException):
    """A kernel needs what the other process compiles just now. Numba does not take it for an error of the kernel."""


class First(Other):
    """The first process, as the second one sees it, which does not wait before it has tried all kernels."""

    waits = False

    def wait(self, path):
        if not self.waits:
            raise Later
        super().wait(path)


_helper = None


def can_help():
    """Whether there could be another process now: not with one processor or one thread, without a cache, while there is one already, or
    after one that has failed."""
    if _helper is not None and (_helper.at_work() or _helper.has_failed()):
        return False
    if jit.get_num_threads() == 1 or jit._forked or "python" not in os.path.basename(sys.executable or "").lower():
        return False  # or a program with Python inside it, or a child whose kernels all are serial
    folder = jit.cache_folder()
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)


def compile_elsewhere(calls):
    """Have another process compile what the cache does not hold of `calls`, from the last to the first, when that is more than one."""
    global _helper
    missing = {call.path(): call for call in calls if not call.path().exists()}
    if len(missing) > 1:
        log.info("another process helps to compile %s", ", ".join(call.name for call in missing.values()))
        jit.other = _helper = Helper(list(missing.values())[::-1])


def compile_all(folder, calls):
    """What the other process does: compile `calls` in their order, and say so.

    It fails where that would be for nothing: when its own options lead to another `folder` of the cache, or nothing can be written there.
    """
    jit.other = first = First(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what others print, Numba's diagnostics or the like, is not for the first process
    threading.Thread(target=_end_with, args=(first,), daemon=True).start()
    warnings.simplefilter("ignore")  # the first process says so too
    if str(jit.cache_folder()) != folder:
        os._exit(1)
    for first.waits in (False, True):
        for call in calls:
            if not call.path().exists() and not first.has_begun(call.path()):
                try:
                    call.dispatcher().compile(call.types)
                except Later:
                    continue
                if not call.path().exists():
                    os._exit(1)
    os._exit(0)  # Python would wait for the thread that listens


def _end_with(other):
    """End this process when `other` does."""
    other.listen()
    os._exit(1)


@atexit.register
def _end():
    """What nobody waits for any more does not go on."""
    if _helper is not None:
        _helper.end()

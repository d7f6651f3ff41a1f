"""How kernels are compiled, cached and launched.

`@kernel` makes an entry point: called from Python as `name(work, *arguments)`, where `work` estimates its scalar operations.
`@device` makes a function that kernels call. Neither compiles anything before its first call.

Compiled code is kept in a folder of its own whose name is a hash of all kernel sources and of everything else that shapes the code.
Numba's own cache looks at one file's text only: it misses a change in a callee, and raises on a damaged file.
"""

import contextlib
import functools
import gc
import hashlib
import logging
import os
import pickle
import platform
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, _Cache

SPINS = "10000"
"""How often a waiting thread of GNU OpenMP looks for work before it sleeps: 0.2 ms, more than lies between two kernels.

libgomp's own 300,000 are 6 ms, in which whatever else runs on the processors must wait: a step of LeNet-5 beside another program takes
60 to 90 ms with them, and 10 with these. With 5,000 it takes 6, but 2 to 5 % longer when nothing else runs.
"""

SERIAL_BELOW = 1 << 17  # scalar operations; a parallel region costs 1.3 us on omp but 130 us on workqueue
"""Below this much work a kernel runs on the calling thread."""

log = logging.getLogger("fastconv")


# --- threads -------------------------------------------------------------------------------------------------------------

_num_threads = config.NUMBA_NUM_THREADS
_applied = threading.local()  # Numba keeps the number per Python thread; fastconv's is one for the process
_workqueue_lock = threading.RLock()  # workqueue aborts the process when two Python threads enter at once
_needs_lock = False
_pool_started = False
_forked = False


def set_num_threads(n):
    """Use `n` threads for every kernel, in every Python thread of this process.

    Results do not depend on it: work is cut by shape, never by the number of threads.

    Parameters
    ----------
    n : int
        From 1 to the number of processors (or the environment's ``NUMBA_NUM_THREADS``).

    Raises
    ------
    TypeError, ValueError
        When `n` is no integer, or out of range.
    """
    from fastconv.errors import ArgumentError, ArgumentTypeError

    global _num_threads
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ArgumentTypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= config.NUMBA_NUM_THREADS:
        raise ArgumentError(f"n must be from 1 to {config.NUMBA_NUM_THREADS} (NUMBA_NUM_THREADS sets the limit), got {n}")
    _num_threads = int(n)


def get_num_threads():
    """Return the number of threads that kernels use (int)."""
    return _num_threads


def threading_layer():
    """Return the name of the threading layer in use: "omp", "tbb" or "workqueue". Starts it when need be."""
    _enter()
    return numba.threading_layer()


def _enter():
    """Apply the number of threads in this Python thread; start the pool."""
    global _needs_lock, _pool_started
    if _pool_started:
        numba.set_num_threads(_num_threads)
    else:
        with _fewer_spins():
            numba.set_num_threads(_num_threads)
        _needs_lock = numba.threading_layer() == "workqueue"
        _pool_started = True
    _applied.threads = _num_threads


@contextlib.contextmanager
def _fewer_spins():
    """Let libgomp find SPINS in the environment, where it looks once, when it is loaded; unless the user says how threads wait."""
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _after_fork():
    """A forked child inherits a pool without its threads (omp kills the process there): kernels run serially from here on."""
    global _forked, other
    _forked, other = _pool_started, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- the cache -----------------------------------------------------------------------------------------------------------


def cache_root():
    """Folder that holds all of fastconv's compiled code: ``FASTCONV_CACHE_DIR``, ``NUMBA_CACHE_DIR`` or the user's cache folder."""
    for variable in ("FASTCONV_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / "fastconv"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "fastconv"


@functools.cache
def cache_folder():
    """Folder of the code compiled from exactly these sources, by these versions, with these options."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    options = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "CPU_NAME", "CPU_FEATURES", "DEBUGINFO_DEFAULT")
    python = (platform.python_implementation(), sys.version_info[:2], sys.abiflags)
    packages = (numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((python, packages, [str(getattr(config, option)) for option in options])).encode())
    return cache_root().absolute() / digest.hexdigest()[:20]


@functools.cache
def _warn_no_cache(reason):
    warnings.warn(f"fastconv cannot keep its compiled kernels ({reason}); every process will compile them anew. "
                  "Set FASTCONV_CACHE_DIR to a writable folder.", RuntimeWarning, stacklevel=2)


class KernelCache(_Cache):
    """One file per compiled signature; a file that is missing, damaged or unreadable counts as not there."""

    def __init__(self, function, form):
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}.{form}"
        self.compiled = CompileResultCacheImpl.__new__(CompileResultCacheImpl)  # reduce and rebuild only; it must not look for a locator

    @property
    def cache_path(self):
        return str(cache_folder())

    def path(self, signature, codegen):
        key = hashlib.sha256(repr((str(signature), codegen.magic_tuple())).encode()).hexdigest()[:16]
        return cache_folder() / f"{self.name}-{key}.bin"

    def load_overload(self, sig, target_context):
        target_context.refresh()
        path = self.path(sig, target_context.codegen())
        try:
            checksum, payload = path.read_bytes().split(b"\n", 1)
            if hashlib.sha256(payload).hexdigest().encode() == checksum:
                needs, compiled = pickle.loads(payload)
                for name, key in needs:
                    aparts[name].prepare(key)
                return self.compiled.rebuild(target_context, compiled)
            reason = "damaged"
        except FileNotFoundError:
            if other and other.has_begun(path):
                self._announce(sig, "by another process")
                other.wait(path)
                return self.load_overload(sig, target_context)
            reason = "new"
        except (OSError, ValueError) as error:
            reason = str(error)
        self._announce(sig, reason)
        if other:
            other.say("begun", path)
        return None

    def _announce(self, sig, reason):
        log.info("compiling %s for %s (%s)", self.name, sig, reason)
        for listener in compile_listeners:
            listener(self.name)

    def save_overload(self, sig, data):
        path = self.path(sig, data.codegen)
        try:
            self._save(path, data)
        except OSError as error:
            _warn_no_cache(f"{error.strerror or error}: {path.parent}")
        except RuntimeError as error:  # llvmlite has lost a Ctrl-C, and the machine code's file with it; the code is there
            log.info("%s is not kept: %s", path.name, error)
        finally:
            if other:
                other.say("done", path)

    def _save(self, path, data):
        declared = (f.name for f in data.library._final_module.functions if f.is_declaration)
        needs = [prepared[name] for name in declared if name in prepared]
        payload = numba.core.serialize.dumps((needs, self.compiled.reduce(data)))
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            temporary.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def enable(self):
        """Numba's switch, which is not used; nor are the others."""

    disable = flush = enable


aparts: dict[str, Any] = {}
"""What is compiled apart (`kernels.apart`), by name."""

prepared: dict[str, tuple[str, Any]] = {}
"""Symbols of code that was compiled apart, and what is there: (its name, the types that it is for). What calls it needs it first."""

other: Any = None
"""The process that compiles meanwhile (`kernels.ahead.Other`), if there is one."""

compile_listeners = []
"""Functions called with a kernel's name when it is about to be compiled: a command line says so with them."""


# --- the decorators ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _compiling():
    """Let Python's garbage collector wait: while Numba compiles it looks 1,300 times through objects that all are needed, a tenth of the
    time. And nobody else shall wait for what is interrupted."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    except BaseException:
        if other:
            other.give_up()
        raise
    finally:
        if enabled:
            gc.enable()


def dispatcher_of(function, form, **options):
    """Numba's dispatcher of `function`, which keeps what it compiles in fastconv's cache."""
    if config.DISABLE_JIT:
        raise RuntimeError("fastconv's kernels need Numba's compiler: unset NUMBA_DISABLE_JIT")
    dispatcher = numba.njit(error_model="numpy", nogil=True, **options)(function)
    dispatcher._cache = KernelCache(function, form)
    dispatcher._compiler.compile = _compiling()(dispatcher._compiler.compile)
    return dispatcher


def device(function=None, **options):
    """Decorator of a function that kernels call. Options are Numba's, for instance ``inline="always"`` or ``fastmath``."""
    if function is None:
        return functools.partial(device, **options)
    return dispatcher_of(function, "device", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


class Kernel:
    """A compiled entry point in two forms, serial and parallel over its `prange`. Which one runs depends on the work alone."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.serial = dispatcher_of(function, "serial", no_cfunc_wrapper=True)
        self.parallel = dispatcher_of(function, "parallel", parallel=True, no_cfunc_wrapper=True)

    def compiled(self, work, arguments):
        """The machine code of a call that has been made: it takes arguments of the same types, and does not find out which they are."""
        dispatcher = self.serial if work < SERIAL_BELOW else self.parallel
        return dispatcher.overloads[tuple(map(dispatcher.typeof_pyval, arguments))].entry_point

    def __call__(self, work, *arguments):
        if work < SERIAL_BELOW or _forked:
            return self.serial(*arguments)
        if getattr(_applied, "threads", 0) != _num_threads:
            _enter()
        if not _needs_lock:
            return self.parallel(*arguments)
        with _workqueue_lock:
            return self.parallel(*arguments)


def free_to_launch():
    """Whether this thread may run machine code of the parallel form as it is; the number of threads then is applied."""
    if _forked:
        return False
    if getattr(_applied, "threads", 0) != _num_threads:
        _enter()
    return not _needs_lock


class Busy(RuntimeError):
    """Another thread is where only one can be."""


_interception = threading.RLock()


@contextlib.contextmanager
def intercepted(call):
    """Within, a kernel of this thread is called as call(run, kernel, work, *arguments), where run(kernel, work, *arguments) runs it.

    One thread at a time; `Busy` for another one, which may hold a lock that the first one waits for.
    """
    if not _interception.acquire(blocking=False):
        raise Busy("another thread's kernels are being recorded")
    here, run = threading.get_ident(), Kernel.__call__

    def intercept(kernel, work, *arguments):
        if threading.get_ident() != here:
            return run(kernel, work, *arguments)
        return call(run, kernel, work, *arguments)

    Kernel.__call__ = intercept
    try:
        yield
    finally:
        Kernel.__call__ = run
        _interception.release()


def kernel(function):
    """Decorator of a kernel's entry point, see `Kernel`."""
    return Kernel(function)

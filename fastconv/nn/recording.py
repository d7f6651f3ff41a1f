"""Whether forward passes remember what backward needs, and which module is called: both for each thread."""

import contextlib
import threading


class _Thread(threading.local):
    paused = 0
    call = None


this_thread = _Thread()


class no_grad(contextlib.ContextDecorator):
    """Context manager or decorator under which forward passes of this thread remember nothing.

    For evaluation: no activation outlives its use. `backward` then still refers to the last pass outside of it.

    Examples
    --------
    >>> from fastconv import nn
    >>> with nn.no_grad():
    ...     y = nn.ReLU()(np.ones((1, 2)))
    """

    def __enter__(self):
        this_thread.paused += 1

    def __exit__(self, *exception):
        this_thread.paused -= 1


def recording():
    """Whether forward passes of this thread remember what backward needs."""
    return not this_thread.paused


def running():
    """(module, its inputs) of the call that this thread is in, or None."""
    return this_thread.call

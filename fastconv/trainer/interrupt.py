"""Ctrl-C as a request: finish what is being computed, then stop."""

import signal
import threading


class Interrupt:
    """Context in which the first Ctrl-C only sets `requested`; the second one raises KeyboardInterrupt as always.

    An exception in the middle of an optimizer's step would leave some parameters old and some new. In other threads than the main
    one, and where the program handles SIGINT itself, nothing is changed.
    """

    def __init__(self):
        self.requested = False
        self.previous = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception):
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None

    def _handle(self, number, frame):
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True

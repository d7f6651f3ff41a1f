"""What the commands share: types of options, tables, the notice that kernels are being compiled."""

import argparse
import sys

from fastconv.kernels import jit


def positive_int(text):
    """An argument's type: an integer of at least 1."""
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def natural(text):
    """An argument's type: an integer of at least 0."""
    value = _number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def positive_float(text):
    """An argument's type: a number above 0."""
    value = _number(float, text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _number(kind, text):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {'an integer' if kind is int else 'a number'}, got {text!r}") from None


def add_threads(parser):
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads to compute with (default: one for each processor)")


def table(rows, right=()):
    """Lines of a table: `rows` of strings, the first the heading; the columns in `right` are flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


class CompileNotice:
    """Context that says so, on standard error, when kernels are compiled inside it.

    On a terminal one line counts them; elsewhere there is a line when it begins and one when it is over.
    """

    def __init__(self, quiet=False):
        self.quiet = quiet
        self.count = 0

    def __enter__(self):
        jit.compile_listeners.append(self._hear)
        return self

    def __exit__(self, *exception):
        jit.compile_listeners.remove(self._hear)
        if self.count and not self.quiet:
            self._line(f"compiled {self.count} kernels", "\n")

    def _hear(self, name):
        self.count += 1
        if self.quiet:
            return
        text = "compiling kernels for this processor, once, about 15 s"
        if sys.stderr.isatty():
            self._line(f"{text}: {self.count:3} {name}", "")
        elif self.count == 1:
            self._line(text, "\n")

    @staticmethod
    def _line(text, end):
        start = "\r\033[K" if sys.stderr.isatty() else ""  # to the beginning of the line, which is cleared
        sys.stderr.write(f"{start}{text[:100]}{end}")
        sys.stderr.flush()

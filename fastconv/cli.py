"""The command line: `fastconv COMMAND ...`. Every command has a module of its own in `fastconv.commands`, imported when it is asked for."""

import argparse
import importlib
import os
import sys
import traceback
import warnings

from fastconv.errors import FastconvError

COMMANDS = {
    "train": "train a network: by default LeNet-5 on the MNIST that comes with fastconv",
    "predict": "say what pictures show, with a network that was trained",
    "explain": "walk one image through the lecture's network, forward and back, in numbers",
    "bench": "measure how fast layers and networks are on this computer",
    "info": "show versions, processor, threads, cache and networks",
    "warm-up": "compile now what training needs, so that it starts at once",
}
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv=None):
    """Run a command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; without it those of the process.

    Returns
    -------
    int
        Exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        parser, run = _parser(argv)
        options = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed help or an error
        return end.code or OK
    if run is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough; nothing more can be written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        else:
            _complain(_message(error))
        return FAILED


def _parser(argv):
    """The parser of all commands, with the arguments of the one in `argv`, and that one's function."""
    parser = argparse.ArgumentParser(prog="fastconv", description="Train convolutional neural networks on a CPU.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    run = None
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        command.add_argument("--traceback", action="store_true", help="of an error, show where it happened")
        if name == chosen:
            module = importlib.import_module(f"fastconv.commands.{name.replace('-', '_')}")
            module.add_arguments(command)
            run = module.run
    return parser, run


class _Version(argparse.Action):
    def __init__(self, option_strings, dest):
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")

    def __call__(self, parser, namespace, values, option_string=None):
        import fastconv

        print(f"fastconv {fastconv.__version__}")
        parser.exit()


def _complain(text):
    print(f"fastconv: {text}", file=sys.stderr)


def _warn(message, *where):
    _complain(f"warning: {message}")


def _message(error):
    """One line that says what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, (FastconvError, OSError)):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}"
    else:
        text = f"unexpected {type(error).__name__}: {error} (--traceback shows where)"
    notes = getattr(error, "__notes__", [])
    return "error: " + "; ".join(line.strip() for part in (text, *notes) for line in part.splitlines() if line.strip())

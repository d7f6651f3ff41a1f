"""The exceptions of fastconv: one family, and each member is also the built-in exception that users expect.

Every message names the argument, says what came and what was needed.
"""


class FastconvError(Exception):
    """Base class of every error that fastconv raises on purpose."""


class ArgumentError(FastconvError, ValueError):
    """An argument has the right type but a value, shape or combination that cannot work."""


class ArgumentTypeError(FastconvError, TypeError):
    """An argument has a type or dtype that fastconv does not take."""


class FileFormatError(FastconvError, ValueError):
    """A file exists but does not hold what it should."""


class NotFiniteError(FastconvError, ArithmeticError):
    """A number that must be finite (a loss, a gradient) became NaN or infinite."""


class GradientError(FastconvError, AssertionError):
    """A gradient differs from its numerical check."""

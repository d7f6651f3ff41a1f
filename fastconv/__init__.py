"""fastconv: train convolutional networks on a CPU, fast, in Python that can be read."""

from fastconv import functional
from fastconv import functional as F
from fastconv.errors import FastconvError
from fastconv.gradcheck import gradcheck
from fastconv.kernels.jit import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = ["F", "FastconvError", "functional", "get_num_threads", "gradcheck", "set_num_threads"]

"""fastconv: train convolutional networks on a CPU, fast, in Python that can be read."""

from fastconv import datasets, functional, models, nn, optim
from fastconv import functional as F
from fastconv.errors import FastconvError
from fastconv.functional.conv import get_winograd, set_winograd
from fastconv.functional.conv_amx import get_amx, set_amx
from fastconv.gradcheck import gradcheck
from fastconv.kernels.jit import get_num_threads, set_num_threads
from fastconv.nn.init import manual_seed
from fastconv.serialization import load, load_metadata, save
from fastconv.trainer import History, Trainer
from fastconv.warmup import warm_up

__version__ = "0.1.0"

__all__ = [
    "F",
    "FastconvError",
    "History",
    "Trainer",
    "datasets",
    "functional",
    "get_amx",
    "get_num_threads",
    "get_winograd",
    "gradcheck",
    "load",
    "load_metadata",
    "manual_seed",
    "models",
    "nn",
    "optim",
    "save",
    "set_amx",
    "set_num_threads",
    "set_winograd",
    "warm_up",
]

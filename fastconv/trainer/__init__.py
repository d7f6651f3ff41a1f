"""The training loop: epochs of batches, evaluation, prediction, and the record of it all."""

from fastconv.trainer.fitting import Report
from fastconv.trainer.history import History
from fastconv.trainer.trainer import Trainer

__all__ = ["History", "Report", "Trainer"]

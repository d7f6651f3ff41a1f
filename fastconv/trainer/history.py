"""What a training run was like, epoch by epoch."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from fastconv.errors import FileFormatError
from fastconv.files import write_atomically


@dataclass
class History:
    """One entry for each epoch in every list; None where nothing was measured.

    Attributes
    ----------
    loss, accuracy : list
        Means over the images of the epoch, each measured when its batch was trained on. Accuracy is None for a loss that knows none
        (MSELoss).
    val_loss, val_accuracy : list
        Of the validation data after the epoch; None without validation data.
    images_per_second : list of float
        Training alone, without validation.
    seconds : list of float
        The whole epoch, with validation.
    lr : list of float
        The learning rate of the epoch's last update.
    stopped : str or None
        Why the run ended before its last epoch: "interrupted" (the last entry is then of a part of an epoch), "patience" or
        "callback"; None when it did not.
    """

    loss: list = field(default_factory=list)
    accuracy: list = field(default_factory=list)
    val_loss: list = field(default_factory=list)
    val_accuracy: list = field(default_factory=list)
    images_per_second: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    lr: list = field(default_factory=list)
    stopped: str | None = None

    def __len__(self):
        return len(self.loss)

    def append(self, **values):
        """Add an epoch; what is not given is None."""
        for name in LISTS:
            getattr(self, name).append(values.pop(name, None))
        if values:
            raise TypeError(f"unknown: {', '.join(values)}")

    def monitored(self):
        """The list by which an epoch is called better: val_loss where measured, else loss."""
        return [value if value is not None else loss for value, loss in zip(self.val_loss, self.loss, strict=True)]

    def to_dict(self):
        """Return the lists and `stopped` as a dict."""
        return asdict(self)

    def save(self, path):
        """Write as JSON, atomically. Numbers that JSON does not know (NaN, infinity) become null."""
        values = self.to_dict()
        for name in LISTS:
            values[name] = [value if value is None or math.isfinite(value) else None for value in values[name]]
        write_atomically(path, json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        FileFormatError
            When it holds something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {path}") from None
        except ValueError as error:
            raise FileFormatError(f"{path} is no history: {error}") from None
        if not isinstance(values, dict) or set(values) != {*LISTS, "stopped"}:
            raise FileFormatError(f"{path} is no history: it must hold {', '.join(LISTS)} and stopped")
        for name in LISTS:
            if not isinstance(values[name], list) or len(values[name]) != len(values["loss"]):
                raise FileFormatError(f"{path} is no history: {name} must be a list with an entry for each epoch")
            if not all(value is None or type(value) in (int, float) for value in values[name]):
                raise FileFormatError(f"{path} is no history: {name} must hold numbers")
        return cls(**values)


LISTS = tuple(f.name for f in fields(History) if f.name != "stopped")

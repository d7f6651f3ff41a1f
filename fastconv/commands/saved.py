"""What a training run leaves in its folder, for `predict` and for going on."""

import json

import numpy as np

import fastconv
from fastconv import models
from fastconv.errors import FileFormatError
from fastconv.serialization import load, load_metadata, save
from fastconv.trainer import History

MODEL, STATE, HISTORY = "model.safetensors", "training.safetensors", "history.json"


def save_model(path, model, network, dataset, data):
    """Write the model with all that `predict` must know."""
    shape = data.split.x_train.shape[1:]
    description = {
        "model": network,
        "dataset": dataset,
        "classes": list(data.class_names),
        "shape": list(shape),
        "values": "0 to 1" if data.unit else "as they are",
    }
    save(model.state_dict(), path, {"fastconv": json.dumps(description), "version": fastconv.__version__})


def load_model(path):
    """The model in a file that `save_model` wrote, in evaluation mode, and its description (a dict)."""
    metadata = load_metadata(path)
    try:
        description = json.loads(metadata["fastconv"])
        network, classes, shape = description["model"], list(map(str, description["classes"])), tuple(map(int, description["shape"]))
        if network not in models.INPUT_SHAPES or len(shape) != 3:
            raise ValueError(network)
    except (KeyError, TypeError, ValueError):
        raise FileFormatError(
            f"{path} holds arrays, but not the description that fastconv train adds to a model: which network, which classes"
        ) from None
    model = models.create(network, num_classes=len(classes), in_channels=shape[0], seed=0)
    state = load(path)
    try:
        model.load_state_dict(state)
    except ValueError as error:
        raise FileFormatError(f"{path} does not hold the network {network}: {error}") from None
    return model.eval(), {**description, "classes": classes, "shape": shape}


def save_state(path, options, trainer, history):
    """Write all that going on after this epoch needs, so that an interrupted run continues with the same bits."""
    optimizer = trainer.optimizer.state_dict()
    arrays = {f"model.{name}": array for name, array in trainer.model.state_dict().items()}
    numbers = {}
    for parameter, entry in optimizer["state"].items():
        numbers[parameter] = {name: value for name, value in entry.items() if not isinstance(value, np.ndarray)}
        arrays |= {f"optimizer.{parameter}.{name}": value for name, value in entry.items() if isinstance(value, np.ndarray)}
    training = {
        "options": options,
        "groups": optimizer["param_groups"],
        "numbers": numbers,
        "scheduler": trainer.scheduler.state_dict() if trainer.scheduler else None,
        "history": history.to_dict(),
    }
    save(arrays, path, {"training": json.dumps(training)})


def read_state(path):
    """(options, history, restore): `restore(trainer)` gives model, optimizer and scheduler what `save_state` wrote."""
    try:
        training = json.loads(load_metadata(path)["training"])
        options, history = training["options"], History(**training["history"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is not the state of a training run: {error}") from None
    arrays = load(path)

    def restore(trainer):
        trainer.model.load_state_dict({name.removeprefix("model."): a for name, a in arrays.items() if name.startswith("model.")})
        state = {int(parameter): dict(entry) for parameter, entry in training["numbers"].items()}
        for name, array in arrays.items():
            if name.startswith("optimizer."):
                _, parameter, key = name.split(".", 2)
                state[int(parameter)][key] = array
        trainer.optimizer.load_state_dict({"state": state, "param_groups": training["groups"]})
        if trainer.scheduler:
            trainer.scheduler.load_state_dict(training["scheduler"])

    return options, history, restore

"""`fastconv train`: from a data set to a model, its history and pictures of both."""

import math
import sys
from pathlib import Path

import numpy as np

from fastconv import models, nn, optim
from fastconv.commands import saved
from fastconv.commands.console import CompileNotice, add_threads, natural, positive_float, positive_int
from fastconv.commands.data import DATASETS, NETWORKS, load
from fastconv.errors import ArgumentError
from fastconv.files import prepare_folder
from fastconv.kernels.jit import get_num_threads, set_num_threads
from fastconv.trainer import History, Trainer
from fastconv.warmup import OPTIMIZERS, exercise

DEFAULTS = {
    "model": None,
    "dataset": "mnist",
    "data": None,
    "epochs": None,
    "batch_size": 64,
    "optimizer": "sgd",
    "lr": None,
    "schedule": "onecycle",
    "seed": 0,
    "limit": None,
}
EPOCHS = {"mnist": 3, "digits": 20, "folder": 20, "npz": 20}
RATES = {"sgd": 0.1, "adam": 0.003, "adamw": 0.003, "rmsprop": 0.001}
FILES = (saved.MODEL, saved.HISTORY, "curves.png", "confusion.png", "filters.png", "mistakes.png", saved.STATE)
INTERRUPTED = 130


def add_arguments(parser):
    parser.add_argument(
        "--model", choices=NETWORKS, metavar="NETWORK", help=f"one of {', '.join(NETWORKS)} (default: one that fits the data set)"
    )
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        help="mnist and digits come with fastconv; folder: PNG and JPEG pictures in a folder for "
        "each class; npz: arrays x_train, y_train, x_test, y_test (default: mnist)",
    )
    parser.add_argument("--data", metavar="PATH", help="the folder or the .npz file; a folder may hold the two folders train and test")
    parser.add_argument(
        "--epochs", type=positive_int, metavar="N", help="how often to go through the images (default: 3 for mnist, else 20)"
    )
    parser.add_argument("--batch-size", type=positive_int, metavar="N", help="images for each update (default: 64)")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), help="(default: sgd, with momentum 0.9)")
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in RATES.items())
    parser.add_argument("--lr", type=positive_float, metavar="RATE", help=f"the highest learning rate (default: {rates})")
    parser.add_argument("--schedule", choices=("onecycle", "cosine", "constant"), help="how the learning rate changes (default: onecycle)")
    parser.add_argument("--seed", type=natural, metavar="N", help="of the weights and of the order of the images (default: 0)")
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="only the first N images to train and to test with, for a quick try"
    )
    add_threads(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="the folder for the results (default: a new one in fastconv-output)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output after its last whole epoch")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are in --output")
    parser.add_argument("--no-progress", action="store_true", help="print results only")


def run(options):
    if options.threads:
        set_num_threads(options.threads)
    settings, history, restore = _settings(options)
    data = _data(settings)
    model = _model(settings, data)
    folder = _folder(options, settings)
    prepare_folder(folder, 6 * sum(p.data.nbytes for p in model.parameters()) + 2_000_000)
    count, threads = len(data.split.x_train), get_num_threads()
    _say(options, f"{settings['model']}, {model.num_parameters():,} parameters, on {settings['dataset']}, {count:,} images; "
                  f"{threads} thread{'s' * (threads > 1)}")  # fmt: skip
    _compile(options, settings, data)
    if not options.resume:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)  # of the run that --overwrite replaces
    trainer = _trainer(model, settings, math.ceil(count / settings["batch_size"]), options, folder)
    if restore:
        restore(trainer)
    history = _fit(trainer, data, settings, history)
    saved.save_model(folder / saved.MODEL, model, settings["model"], settings["dataset"], data)
    history.save(folder / saved.HISTORY)
    if len(history):
        _pictures(folder, trainer, data, history)
    _report(history, folder)
    return INTERRUPTED if history.stopped == "interrupted" else 0


def _say(options, text):
    if not options.no_progress:
        print(text, file=sys.stderr)


# --- before --------------------------------------------------------------------------------------------------------------


def _settings(options):
    """What to train and how (a dict), and of a resumed run the history so far and how to restore its state."""
    given = {name: getattr(options, name) for name in DEFAULTS if getattr(options, name) is not None}
    if not options.resume:
        settings = {**DEFAULTS, **given}
        settings["lr"] = settings["lr"] or RATES[settings["optimizer"]]
        settings["epochs"] = settings["epochs"] or EPOCHS[settings["dataset"]]
        return settings, History(), None
    if options.output is None:
        raise ArgumentError("--resume needs --output, the folder of the run to go on with")
    path = options.output / saved.STATE
    if not path.exists():
        raise FileNotFoundError(
            f"there is no training to go on with in {options.output}: no {saved.STATE}, which is written after the first epoch"
        )
    settings, history, restore = saved.read_state(path)
    changed = [name for name, value in given.items() if name != "epochs" and value != settings.get(name)]
    if changed:
        raise ArgumentError(f"--{changed[0].replace('_', '-')} cannot be changed by --resume: the run has {settings.get(changed[0])}")
    settings["epochs"] = given.get("epochs", settings["epochs"])
    if settings["epochs"] <= len(history):
        raise ArgumentError(
            f"the run in {options.output} has {len(history)} epochs, which is all that were asked for; --epochs gives a new total"
        )
    return settings, history, restore


def _data(settings):
    """The Data to train on; the network that goes with it becomes the setting "model" where none is set."""
    data, settings["model"] = load(settings["dataset"], settings["data"], settings["model"], settings["seed"], settings["limit"])
    count, size = len(data.split.x_train), settings["batch_size"]
    if size > count:
        raise ArgumentError(f"--batch-size must be at most the number of images to train with, {count}, got {size}")
    return data


def _model(settings, data):
    channels = data.split.x_train.shape[1]
    return models.create(settings["model"], num_classes=len(data.class_names), in_channels=channels, seed=settings["seed"])


def _folder(options, settings):
    """The output folder: a new one unless one is named."""
    if options.output is not None:
        if (options.output / saved.MODEL).exists() and not (options.resume or options.overwrite):
            raise FileExistsError(f"{options.output} holds a model already: --overwrite replaces it, --resume goes on with it")
        return options.output
    base = Path("fastconv-output") / f"{settings['model']}-{settings['dataset']}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _compile(options, settings, data):
    """Compile before the clock of the first epoch runs, for whole batches and for the last, smaller ones."""
    count, size, tests = len(data.split.x_train), settings["batch_size"], len(data.split.x_test)
    largest = max(size, 256)
    training = [n for n in (size, count % size) if n]
    evaluation = [n for n in (min(largest, tests), tests % largest) if n]
    with CompileNotice(options.no_progress):
        exercise(_model(settings, data), settings["optimizer"], data.split.x_train.shape[1:], training, evaluation)


def _trainer(model, settings, batches, options, folder):
    optimizer = OPTIMIZERS[settings["optimizer"]](model.parameters(), settings["lr"])
    steps = settings["epochs"] * batches
    scheduler = None
    if settings["schedule"] == "onecycle":
        scheduler = optim.OneCycleLR(optimizer, settings["lr"], total_steps=steps)
    elif settings["schedule"] == "cosine":
        scheduler = optim.CosineAnnealingLR(optimizer, steps)

    def keep(report):
        saved.save_state(folder / saved.STATE, settings, report.trainer, report.history)

    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        scheduler=scheduler,
        seed=settings["seed"],
        progress=not options.no_progress,
        callbacks=[keep],
        scheduler_step="batch",
    )


def _fit(trainer, data, settings, history):
    split = data.split
    validation = (split.x_test, split.y_test) if len(split.x_test) else None
    epochs = settings["epochs"] - len(history)
    return trainer.fit(split.x_train, split.y_train, epochs, settings["batch_size"], validation, history=history)


# --- after ---------------------------------------------------------------------------------------------------------------


def _pictures(folder, trainer, data, history):
    from fastconv import pictures

    x, y = data.split.x_test, data.split.y_test
    pictures.draw_curves(history, folder / "curves.png", held_out="test")
    first = next(module for module in trainer.model.modules() if isinstance(module, nn.Conv2d))
    pictures.draw_filters(first.weight.data, folder / "filters.png")
    if len(x):
        scores = trainer.predict(x)
        probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        pictures.draw_confusion(y, scores.argmax(axis=1), data.class_names, folder / "confusion.png")
        images = x / np.float32(255) if x.dtype == np.uint8 else x
        pictures.draw_mistakes(images, y, probabilities, data.class_names, folder / "mistakes.png")


def _report(history, folder):
    if history.stopped == "interrupted":
        print(f"interrupted in epoch {len(history)}; fastconv train --resume --output {folder} goes on after the last whole one")
    if len(history) and history.val_accuracy[-1] is not None:
        print(f"test accuracy {100 * history.val_accuracy[-1]:.2f} %, test loss {history.val_loss[-1]:.4f}")
    print(f"in {folder}: {', '.join(name for name in FILES if (folder / name).exists())}")

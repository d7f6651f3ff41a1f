"""Pictures of a training run, drawn by matplotlib without a screen and written atomically as PNG."""

import contextlib
import io
import math
import warnings

import numpy as np

from fastconv.errors import ArgumentError
from fastconv.files import write_atomically

INK, MUTED, GRID = "#222831", "#6b7480", "#e3e6ea"
TRAINING, VALIDATION = "#1f6feb", "#d9480f"
STYLE = {
    "figure.facecolor": "white", "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.titlesize": 12,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": False, "grid.color": GRID, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "font.size": 10,
    "font.family": "DejaVu Sans", "text.parse_math": False,
    "lines.linewidth": 2, "legend.frameon": False,
}  # fmt: skip
MOST_FILTERS = 64
MOST_CLASSES_WITH_NUMBERS = 20


@contextlib.contextmanager
def _figure(path, width, height):
    """A figure in the style of this module; it is written to `path` at the end."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
        yield figure
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # class names may be of any script
            figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def draw_curves(history, path, held_out="validation"):
    """Loss and accuracy over the epochs of a `History`; accuracy is left out where it was not measured.

    `held_out` is what the legend calls the data that was not trained on.
    """
    if not len(history):
        raise ArgumentError("history must have an epoch at least to be drawn, got none")
    from matplotlib.ticker import MaxNLocator

    panels = [("Loss", "loss", 1.0)]
    if any(value is not None for value in history.accuracy):
        panels.append(("Accuracy in %", "accuracy", 100.0))
    with _figure(path, 5.2 * len(panels), 3.8) as figure:
        for axes, (title, name, factor) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.margins(x=0.05, y=0.1)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y")
            _curve(axes, getattr(history, name), factor, "training", TRAINING)
            _curve(axes, getattr(history, f"val_{name}"), factor, held_out, VALIDATION)
            axes.legend(loc="upper right" if name == "loss" else "lower right")


def _curve(axes, values, factor, label, colour):
    """One curve; its name in the legend says where it ends."""
    points = [(epoch, factor * value) for epoch, value in enumerate(values, 1) if value is not None and math.isfinite(value)]
    if points:
        epochs, numbers = zip(*points, strict=True)
        end = f"{numbers[-1]:.4f}" if factor == 1 else f"{numbers[-1]:.2f} %"
        axes.plot(epochs, numbers, color=colour, marker="o", markersize=4.5 if len(points) < 30 else 0, label=f"{label}, {end}")


def draw_confusion(labels, predictions, class_names, path):
    """Confusion matrix of integer `labels` and `predictions`: a row for each true class, a column for each predicted one."""
    from matplotlib.patches import Rectangle

    classes = len(class_names)
    counts = confusion_matrix(labels, predictions, classes)
    wrong = counts - np.diag(np.diag(counts))
    side = min(12.0, max(4.6, 0.52 * classes + 1.6))
    with _figure(path, side + 0.4, side) as figure:
        axes = figure.subplots()
        # the many right ones would leave the mistakes without contrast: the colour is of the mistakes, the diagonal has its own
        limit = max(10, 1.5 * wrong.max())
        axes.set_facecolor("#f6f7f9")
        axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Oranges", vmin=-0.1 * limit, vmax=limit)
        for index in range(classes):
            axes.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, facecolor=TRAINING, edgecolor="white", linewidth=1))
        if classes <= MOST_CLASSES_WITH_NUMBERS:
            _numbers(axes, counts, 0.6 * limit)
        right, total = int(np.trace(counts)), int(counts.sum())
        axes.set_title(f"{right:,} of {total:,} right, {100 * right / max(1, total):.2f} %")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        rotation = 90 if max(map(len, class_names)) * classes > 70 else 0
        if classes <= 60:
            axes.set_xticks(range(classes), class_names, rotation=rotation)
            axes.set_yticks(range(classes), class_names)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)


def _numbers(axes, counts, dark):
    """The counts that are not 0; those above `dark` stand on a dark ground."""
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour, weight = ("white" if row == column or count > dark else INK), ("bold" if row == column else "normal")
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8, weight=weight)


def confusion_matrix(labels, predictions, classes):
    """counts[i, j]: how many images of class i were predicted as class j."""
    index = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes)


def draw_filters(weight, path):
    """The filters of a convolution, weight (OC, IC, KH, KW): in colour for three channels, else a picture for each channel of each."""
    OC, IC, KH, KW = weight.shape
    colour = IC == 3
    planes = weight.transpose(0, 2, 3, 1) if colour else weight.reshape(OC * IC, KH, KW)
    shown = planes[:MOST_FILTERS]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    limit = float(np.abs(shown).max()) or 1.0
    mosaic = _mosaic(shown / (2 * limit) + 0.5 if colour else shown, rows, columns)
    with _figure(path, max(3.4, 1.15 * columns + 0.7), 1.15 * rows + 0.6) as figure:
        axes = figure.subplots()
        axes.set_axis_off()
        image = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        if not colour:
            bar = figure.colorbar(image, ax=axes, fraction=0.04, aspect=14 * rows, pad=0.02)
            bar.outline.set_visible(False)
        more = f", the first {len(shown)} of {len(planes)}" if len(shown) < len(planes) else ""
        figure.suptitle(f"First-layer filters, {KH} x {KW}{more}", x=0.02, ha="left", fontsize=12, weight="bold")


def _mosaic(planes, rows, columns):
    """Planes (P, KH, KW), or (P, KH, KW, 3) of values 0 to 1, enlarged and side by side; what is between them stays white.

    One image: 64 axes would take matplotlib seconds.
    """
    P, KH, KW = planes.shape[:3]
    scale = max(1, 96 // max(KH, KW))
    gap = max(1, scale * max(KH, KW) // 10)
    tiles = planes.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = KH * scale + gap, KW * scale + gap
    canvas = np.full((rows * height - gap, columns * width - gap, *planes.shape[3:]), 1.0 if planes.ndim == 4 else np.nan)
    for index in range(P):
        top, left = index // columns * height, index % columns * width
        canvas[top : top + KH * scale, left : left + KW * scale] = tiles[index]
    return canvas


def draw_mistakes(images, labels, probabilities, class_names, path, most=32):
    """The images (N, C, H, W), values 0 to 1, that were classified wrongly with the greatest confidence. Draws none when all are right."""
    predictions = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-probabilities[wrong, predictions[wrong]], kind="stable")][:most]
    if not len(worst):
        return False
    columns = min(8, len(worst))
    rows = -(-len(worst) // columns)
    with _figure(path, max(4.6, 1.25 * columns), 1.6 * rows + 0.6) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, index in zip(grid.flat, worst, strict=False):
            picture = np.clip(images[index].transpose(1, 2, 0), 0, 1)
            axes.imshow(picture[:, :, 0] if picture.shape[2] == 1 else picture, cmap="gray_r", vmin=0, vmax=1)
            predicted, true = class_names[predictions[index]], class_names[labels[index]]
            text = f"{predicted}, not {true}\n{100 * probabilities[index].max():.0f} % sure"
            axes.set_title(text, fontsize=8, weight="normal", loc="center", pad=3)
        title = f"{len(wrong)} mistakes" if len(wrong) == len(worst) else f"The {len(worst)} most confident of {len(wrong)} mistakes"
        figure.suptitle(title, x=0.015, ha="left", fontsize=12, weight="bold")
    return True

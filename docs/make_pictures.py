"""The pictures in docs/images, from a real `fastconv train` and `fastconv explain`.

    python docs/make_pictures.py            all
    python docs/make_pictures.py lecture    one of: train, lecture, explain

`train` runs the README's training, records its terminal and takes over the pictures that it leaves.
"""

import codecs
import itertools
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).resolve().parent / "images"
ROOT = IMAGES.parents[1]
sys.path.insert(0, str(ROOT))
INK, MUTED, FORWARD, BACKWARD = "#222831", "#6b7480", "#1f6feb", "#d9480f"
LIMIT = 200_000  # bytes of a picture


# --- the lecture's network -----------------------------------------------------------------------------------------------

CELL, GAP = 0.34, 0.5  # inches
COLUMNS = [  # forward, backward, what leads to the next column
    ("X", "dL/dX", "conv"), ("W1", "dL/dW1", "+ b1"), ("Z1", "dL/dZ1", "relu"), ("A1", "dL/dA1", "maxpool"), ("P1", "dL/dP1", "flatten"),
    ("F", "dL/dF", "dense"), ("W2", "dL/dW2", "+ b2"), ("Z2", "dL/dZ2", "sigmoid"), ("A2", "dL/dA2", "loss"),
]  # fmt: skip


def draw_matrix(figure, left, centre, array, name, colour, limit):
    """A matrix of numbers as coloured cells, its middle at height `centre`; inches from the lower left corner."""
    rows, columns = array.shape
    W, H = figure.get_size_inches()
    width, height = columns * CELL, rows * CELL
    axes = figure.add_axes([left / W, (centre - height / 2) / H, width / W, height / H])
    axes.imshow(array, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_axis_off()
    for (row, column), value in np.ndenumerate(array):
        text = "0" if value == 0 else f"{value:.2f}".replace("0.", ".", 1)
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if abs(value) > 0.62 * limit else INK)
    for row in range(rows):
        for column in range(columns):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=0.8))
    title = f"{name} ({rows},{columns})" if width > 0.9 else f"{name}\n({rows},{columns})"
    above = (left + width / 2) / W, (centre + height / 2 + 0.08) / H
    figure.text(*above, title, ha="center", va="bottom", fontsize=8.5, color=colour, weight="bold")


def draw_lecture():
    """One image through the network of the lecture, forward above, gradients below."""
    from fastconv.commands.explain import _image
    from fastconv.explain import Walk

    image, target, _ = _image("11", None)
    walk = Walk(image, target)
    values = {**walk.forward, **walk.before}
    gradients = {check.name: check.value.reshape(walk.SHAPES[check.name[4:]]) for check in walk.checks if check.name.startswith("dL/d")}
    widths = [max(values[name].shape[1] * CELL, 0.5) for name, _, _ in COLUMNS]
    W, H = sum(widths) + GAP * len(widths) + 1.1, 6.1
    figure = Figure(figsize=(W, H), dpi=120, facecolor="white")
    left, top, bottom = 0.25, 4.35, 1.35
    for (name, gradient, step), width in zip(COLUMNS, widths, strict=True):
        for key, source, height, colour in ((name, values, top, FORWARD), (gradient, gradients, bottom, BACKWARD)):
            array = source[key]
            limit = 1.5 * max(np.abs(array).max(), 1e-3)
            draw_matrix(figure, left + (width - array.shape[1] * CELL) / 2, height, array, key, colour, limit)
        middle = left + width + GAP / 2
        for height, colour, sign in ((top, FORWARD, 1), (bottom, BACKWARD, -1)):
            arrow = {"arrowstyle": "->" if sign > 0 else "<-", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
            figure_axes(figure).annotate("", xy=(middle + 0.17, height), xytext=(middle - 0.17, height), arrowprops=arrow)
        figure.text(middle / W, (top - 0.3) / H, step, ha="center", va="top", fontsize=7, color=MUTED, rotation=45)
        left += width + GAP
    y, loss = walk.y[0, 0], values["L"][0, 0]
    figure.text((left + 0.02) / W, top / H, f"L =\n{loss:.4f}", ha="left", va="center", fontsize=9, color=FORWARD, weight="bold")
    figure.text((left + 0.02) / W, bottom / H, f"Y = {y:.0f}", ha="left", va="center", fontsize=9, color=BACKWARD, weight="bold")
    for height, title in (
        (H - 0.15, "Forward: an image and what the layers make of it"),
        (2.95, "Backward: the gradient of the loss by each of them, of the same shape"),
    ):
        figure.text(0.25 / W, height / H, title, fontsize=11, weight="bold", va="top", color=INK)
    figure.savefig(IMAGES / "lecture.png")


def figure_axes(figure):
    """One transparent pair of axes over the whole figure, in inches."""
    if not hasattr(figure, "over"):
        W, H = figure.get_size_inches()
        figure.over = figure.add_axes([0, 0, 1, 1], zorder=10)
        figure.over.set(xlim=(0, W), ylim=(0, H))
        figure.over.set_axis_off()
        figure.over.patch.set_alpha(0)
    return figure.over


# --- terminals -----------------------------------------------------------------------------------------------------------

FONT_SIZE, PAD, LINE = 15, 18, 21
WIDTH, FRAMES = 110, 60  # characters; of a moving picture
GROUND, TEXT, PROMPT = (30, 34, 42), (222, 226, 232), (120, 190, 255)


class Screen:
    """As much of a terminal as a progress bar needs: carriage return, new line, up, clear to the end of the line."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif piece == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif piece == "\x1b[A":
                self.row -= 1
            elif piece[0] != "\x1b":
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
                self.column += len(piece)

    def text(self):
        return [line.rstrip() for line in self.lines]


def record(command, columns):
    """Run a command on a terminal; [(seconds, lines of the screen)] for each of its outputs."""
    screen, frames, began = Screen(), [], time.perf_counter()
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (40, columns))
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "40", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=child, stderr=child, env=environment, close_fds=True)
    os.close(child)
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        ready, _, _ = select.select([parent], [], [], 0.5)
        if ready:
            try:
                data = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            screen.feed(decoder.decode(data))
            frames.append((time.perf_counter() - began, screen.text()))
    os.close(parent)
    if process.wait():
        sys.exit("\n".join(screen.text()))
    return frames


def font():
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), FONT_SIZE)


def wrapped(lines, columns):
    return [part for line in lines for part in textwrap.wrap(line, columns, drop_whitespace=False) or [""]]


def draw_terminal(lines, columns, rows):
    """Lines of text as a picture of a terminal; the first is what was typed."""
    face = font()
    image = Image.new("RGB", (2 * PAD + round(columns * face.getlength("m")), 2 * PAD + rows * LINE), GROUND)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines[:rows]):
        draw.text((PAD, PAD + row * LINE), line, TEXT if row else PROMPT, font=face)
    return image


def save_png(image, path):
    image.quantize(128).save(path, optimize=True)


def draw_explain():
    """What `fastconv explain` prints, the part from the loss to the filter."""
    frames = record([sys.executable, "-m", "fastconv", "explain"], WIDTH)
    lines = frames[-1][1]
    first = next(row for row, line in enumerate(lines) if line.startswith("dL/dZ1"))
    last = next(row for row, line in enumerate(lines) if row > first and line.startswith("---"))
    shown = ["$ fastconv explain", "  ...", *lines[first:last], "  ..."]
    save_png(draw_terminal(shown, 104, len(shown)), IMAGES / "explain.png")


def draw_train():
    """The terminal of `fastconv train` as a moving picture, and the pictures that it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, "-m", "fastconv", "train", "--overwrite", "--output", folder]
        record([*train, "--limit", "4128", "--epochs", "1"], WIDTH)  # compiles, if need be
        frames = record(train, WIDTH)
        for name in ("curves", "confusion", "filters", "mistakes"):
            picture = Image.open(Path(folder) / f"{name}.png").convert("RGB")
            picture.thumbnail((1100, 1100))
            save_png(picture, IMAGES / f"{name}.png")
        frames = [(moment, [line.replace(folder, "fastconv-output/lenet5-mnist") for line in lines]) for moment, lines in frames]
    moving_picture(frames, IMAGES / "train.gif")


def moving_picture(frames, path):
    """At most FRAMES of the frames, at the pace of the terminal, and the last for longer."""
    step, kept, shown = frames[-1][0] / FRAMES, [], -1.0
    for moment, lines in frames[:-1]:
        if moment >= shown + step:
            kept.append((moment, lines))
            shown = moment
    kept.append(frames[-1])
    screens = [wrapped(["$ fastconv train", *lines], WIDTH) for _, lines in kept]
    rows = max(map(len, screens))
    pictures = [draw_terminal(lines, WIDTH, rows) for lines in screens]
    palette = pictures[-1].quantize(8)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]  # one palette: only changes are stored
    durations = [round(1000 * (b - a)) for (a, _), (b, _) in itertools.pairwise(kept)] + [5000]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


PICTURES = {"lecture": draw_lecture, "explain": draw_explain, "train": draw_train}


def main(names):
    IMAGES.mkdir(exist_ok=True)
    for name in names or PICTURES:
        PICTURES[name]()
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.stat().st_size / 1000:6.0f} KB  {path.name}")
        if path.stat().st_size > LIMIT:
            sys.exit(f"{path.name} is larger than {LIMIT // 1000} KB")


if __name__ == "__main__":
    main(sys.argv[1:])

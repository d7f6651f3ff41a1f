"""What a user sees while training: a bar on a terminal, a line for each epoch elsewhere."""

import sys
import time

REFRESH = 0.1  # seconds between two updates of the text: formatting takes longer than a small network's step


def describe(values):
    """Named numbers as "loss 0.0423  accuracy 98.71 %"; what is None is left out."""
    pieces = []
    for name, value in values.items():
        if value is not None:
            share = name.endswith("accuracy")
            pieces.append(f"{name.replace('_', ' ')} {100 * value:.2f} %" if share else f"{name.replace('_', ' ')} {value:.4f}")
    return "  ".join(pieces)


class Silent:
    """No display at all."""

    def start(self, epoch, epochs, images):
        pass

    def update(self, images, measure):
        pass

    def close(self):
        pass

    def summary(self, **values):
        pass


class Lines(Silent):
    """One line for each epoch, for logs."""

    def __init__(self, stream):
        self.stream = stream

    def start(self, epoch, epochs, images):
        self.title = f"epoch {epoch}/{epochs}"

    def summary(self, *, images_per_second, seconds, **values):
        self.stream.write(f"{self.title}  {describe(values)}  {images_per_second:,.0f} images/s  {seconds:.1f} s\n")
        self.stream.flush()


class Bar(Lines):
    """A bar that fills up for each epoch, by tqdm."""

    def start(self, epoch, epochs, images):
        from tqdm import tqdm

        super().start(epoch, epochs, images)
        self.began = self.shown = time.perf_counter()
        self.done = 0
        layout = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}"
        self.bar = tqdm(total=images, desc=self.title, file=self.stream, leave=False, bar_format=layout, dynamic_ncols=True,
                        mininterval=REFRESH)  # fmt: skip

    def update(self, images, measure):
        self.done += images
        now = time.perf_counter()
        if now - self.shown >= REFRESH:
            self.shown = now
            self.bar.set_postfix_str(f"{describe(measure())}  {self.done / (now - self.began):,.0f} images/s", refresh=False)
        self.bar.update(images)

    def close(self):
        self.bar.close()


def display(progress):
    """The display for a Trainer's `progress` option."""
    if not progress:
        return Silent()
    return Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)

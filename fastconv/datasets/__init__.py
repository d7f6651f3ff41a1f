"""Images to train on: two embedded data sets, folders of pictures and the user's own arrays. Nothing is ever downloaded."""

from fastconv.datasets.arrays import Split, load_npz
from fastconv.datasets.embedded import load_digits, load_mnist
from fastconv.datasets.folder import ImageFolder, load_image_folder, read_image

__all__ = ["ImageFolder", "Split", "load_digits", "load_image_folder", "load_mnist", "load_npz", "read_image"]

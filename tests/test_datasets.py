"""The embedded data sets, folders of pictures, the user's own arrays; and files that are missing or broken."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastconv import datasets
from fastconv.datasets import embedded, load_digits, load_image_folder, load_mnist, load_npz, read_image
from fastconv.datasets.arrays import held_out
from fastconv.errors import ArgumentError, ArgumentTypeError, FileFormatError


def test_mnist_is_the_whole_of_it():
    data = load_mnist()
    assert [array.shape for array in data] == [(60000, 1, 28, 28), (60000,), (10000, 1, 28, 28), (10000,)]
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.x_train.min() == 0
    assert data.x_train.max() == 1
    assert data.x_train.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert data.x_train.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)


def test_digits_have_one_split_for_ever():
    data = load_digits()
    assert [array.shape for array in data] == [(1437, 1, 8, 8), (1437,), (360, 1, 8, 8), (360,)]
    assert np.bincount(data.y_test).tolist() == [27, 35, 36, 29, 30, 40, 44, 39, 39, 41]
    assert hashlib.sha256(data.y_train.astype("<i8").tobytes()).hexdigest()[:16] == "113087c8c69213c4"
    assert data.x_train.max() == 1


def test_digits_are_all_there_once():
    x_train, _, x_test, _ = load_digits(dtype=np.float64)
    stored = np.load(embedded.__file__.replace("embedded.py", "digits.npz"))["images"]
    both = np.concatenate([x_train, x_test])[:, 0] * 16
    assert sorted(map(bytes, both.astype(np.uint8))) == sorted(map(bytes, stored))


@pytest.mark.parametrize("load", [load_digits, load_mnist])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardized_images_have_mean_0_and_deviation_1(load, dtype):
    images = load(standardize=True, dtype=dtype).x_train
    assert images.dtype == dtype
    assert images.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
    assert images.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_data_sets_are_read_once_and_cannot_be_changed_by_a_caller():
    assert load_mnist().x_train is load_mnist().x_train
    assert load_mnist(dtype=np.uint8).y_test is load_mnist().y_test
    for array in (*load_mnist(), *load_digits(), *load_mnist(dtype=np.uint8)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_mnist_as_it_is():
    images = load_mnist(dtype=np.uint8).x_train
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(load_mnist().x_train[:50], images[:50] * np.float32(1 / 255))


@pytest.mark.parametrize(
    ("load", "options"),
    [(load_digits, {"dtype": np.uint8}), (load_digits, {"dtype": np.float16}), (load_mnist, {"dtype": np.int64}),
     (load_mnist, {"dtype": np.uint8, "standardize": True})],
)  # fmt: skip
def test_dtypes_that_images_cannot_have(load, options):
    with pytest.raises(ArgumentTypeError, match="dtype must be float32"):
        load(**options)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_data_file_says_what_to_do(tmp_path, damage):
    path = tmp_path / "digits.npz"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises((FileFormatError, FileNotFoundError), match="reinstall fastconv"):
        embedded._read(path)


def test_a_flipped_byte_in_a_data_file_is_noticed(tmp_path):
    path = tmp_path / "digits.npz"
    data = bytearray(Path(embedded.__file__).with_name("digits.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged"):
        embedded._read(path)


def test_credits_stand_beside_the_data():
    text = Path(datasets.__file__).with_name("README.md").read_text()
    for word in ("digits.npz", "mnist.npz", "Alpaydin", "Kaynak", "CC BY 4.0", "LeCun", "Cortes", "Burges", "CC BY-SA 3.0"):
        assert word in text


# --- the user's own arrays


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_of_four_arrays(tmp_path, rng):
    x, y = rng.random((6, 3, 4, 5), np.float32), np.arange(6, dtype=np.uint8)
    data = load_npz(write_npz(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2]))
    np.testing.assert_array_equal(data.x_train, x)
    assert data.y_train.dtype == np.int64
    assert data.x_test.shape == (2, 3, 4, 5)


def test_npz_of_two_arrays_and_one_channel(tmp_path, rng):
    data = load_npz(write_npz(tmp_path / "a.npz", x=rng.integers(0, 256, (6, 4, 5), np.uint8), y=rng.random((6, 2))))
    assert data.x_train.shape == (6, 1, 4, 5)
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.float64  # targets of a regression stay as they are
    assert data.x_test.shape == (0, 1, 4, 5)


IMAGES, LABELS = np.zeros((6, 1, 4, 4), np.float32), np.zeros(6, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": IMAGES, "y_train": LABELS}, "lacks x_test, y_test"),
        ({"images": IMAGES}, "holds images"),
        ({"x": IMAGES, "y": LABELS[:5]}, "equally long"),
        ({"x": IMAGES, "y": np.int64(3)}, "equally long"),
        ({"x": IMAGES[0, 0], "y": LABELS}, r"\(N, C, H, W\)"),
        ({"x": IMAGES.astype(np.int32), "y": LABELS}, "uint8, float32 or float64"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :, 1:], "y_test": LABELS}, "one size"),
    ],
)
def test_npz_whose_arrays_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(FileFormatError, match=message):
        load_npz(write_npz(tmp_path / "a.npz", **arrays))


def test_npz_never_unpickles(tmp_path):
    path = write_npz(tmp_path / "a.npz", x=np.array([{}], object), y=LABELS[:1])
    with pytest.raises(FileFormatError, match="no readable"):
        load_npz(path)


def test_npz_missing_or_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.npz"):
        load_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(FileFormatError, match="no readable"):
        load_npz(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", IMAGES)
    with pytest.raises(FileFormatError, match="holds one array"):
        load_npz(tmp_path / "c.npy")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("x.txt", "words")
    with pytest.raises(FileFormatError, match="lacks"):
        load_npz(tmp_path / "d.npz")


def test_held_out_parts_are_disjoint_and_fixed_by_the_seed(rng):
    x = np.arange(20.0).reshape(20, 1, 1, 1)
    first, again, other = (held_out(x, np.arange(20), 0.25, seed) for seed in (1, 1, 2))
    assert len(first.x_test) == 5
    assert sorted([*first.y_train, *first.y_test]) == list(range(20))
    np.testing.assert_array_equal(first.x_train[:, 0, 0, 0], first.y_train)
    np.testing.assert_array_equal(first.y_test, again.y_test)
    assert first.y_test.tolist() != other.y_test.tolist()
    with pytest.raises(ArgumentError, match="two images"):
        held_out(x[:1], np.arange(1), 0.25, 0)
    with pytest.raises(ArgumentError, match="share"):
        held_out(x, np.arange(20), 1.0, 0)


# --- pictures


def write_picture(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path, rng):
    for name, count in (("dog", 2), ("cat", 3)):
        for index in range(count):
            write_picture(tmp_path / name / f"{index}.png", rng.integers(0, 256, (4, 6, 3)))
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_folder_of_classes(pets):
    x, y, names = load_image_folder(pets)
    assert names == ("cat", "dog")
    assert y.tolist() == [0, 0, 0, 1, 1]
    assert x.shape == (5, 3, 4, 6)
    assert x.dtype == np.float32
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous  # no copy on the way into a convolution
    np.testing.assert_array_equal(x[3], np.asarray(Image.open(pets / "dog" / "0.png")).transpose(2, 0, 1) * np.float32(1 / 255))


def test_folder_resized_grey_and_as_bytes(pets):
    x, _, _ = load_image_folder(pets, size=(8, 5), grayscale=True, dtype=np.uint8)
    assert x.shape == (5, 1, 8, 5)
    assert x.dtype == np.uint8


def test_folder_of_sizes_that_differ(pets, rng):
    write_picture(pets / "cat" / "9.jpg", rng.integers(0, 256, (5, 5)))
    with pytest.raises(FileFormatError, match=r"9\.jpg has 5 x 5 pixels.*give a size"):
        load_image_folder(pets)
    assert load_image_folder(pets, size=4).x.shape == (6, 3, 4, 4)


def test_folders_that_hold_no_classes(tmp_path, pets):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_image_folder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="holds none"):
        load_image_folder(tmp_path / "empty")
    with pytest.raises(FileFormatError, match="no PNG or JPEG picture of the class empty"):
        load_image_folder(pets)


def test_broken_picture_is_named(pets):
    (pets / "dog" / "broken.png").write_bytes((pets / "dog" / "0.png").read_bytes()[:60])
    with pytest.raises(FileFormatError, match=r"broken\.png is no picture that can be read"):
        load_image_folder(pets)


def test_picture_missing_or_of_a_wrong_size(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*no\.png"):
        read_image(tmp_path / "no.png")
    with pytest.raises(ArgumentError, match="size"):
        read_image(write_picture(tmp_path / "a.png", np.zeros((2, 2))), size=0)
    with pytest.raises(ArgumentTypeError, match="dtype"):
        read_image(tmp_path / "a.png", dtype=np.int32)


def test_transparent_pixels_are_white(tmp_path):
    path = write_picture(tmp_path / "a.png", np.zeros((2, 2, 4)))
    np.testing.assert_array_equal(read_image(path), np.ones((3, 2, 2)))


def test_sixteen_bits_become_eight(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 256], [32768, 65535]], np.uint16)).save(path)
    np.testing.assert_array_equal(read_image(path, grayscale=True, dtype=np.uint8), [[[0, 1], [128, 255]]])


def test_the_cameras_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to the right
    path = write_picture(tmp_path / "a.png", [[0, 0, 0], [255, 255, 255]], exif=exif)
    np.testing.assert_array_equal(read_image(path, grayscale=True), [[[1, 0], [1, 0], [1, 0]]])

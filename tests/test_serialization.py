"""save and load: every array comes back, files are whole or not there, and foreign files are named as such."""

import os
import threading

import numpy as np
import pytest

from fastconv import models, serialization
from fastconv.errors import ArgumentError, ArgumentTypeError, FileFormatError
from fastconv.serialization import load, load_metadata, save


def test_round_trip_of_a_model(tmp_path):
    model, other = models.digits_cnn(seed=1), models.digits_cnn(seed=2)
    save(model.state_dict(), tmp_path / "model.safetensors", {"model": "digits_cnn"})
    other.load_state_dict(load(str(tmp_path / "model.safetensors")))
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], array)
    assert load_metadata(tmp_path / "model.safetensors") == {"model": "digits_cnn"}


AWKWARD = {
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "reversed": np.arange(5, dtype=np.float64)[::-1],
    "strided": np.arange(10, dtype=np.int64)[::3],
    "big-endian": np.arange(3, dtype=">f8"),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "broadcast": np.broadcast_to(np.float32(2), (2, 2)),
    "special": np.array([np.nan, np.inf, -0.0]),
    "bool": np.array([True, False]),
    "uint8": np.arange(3, dtype=np.uint8),
    "half": np.arange(3, dtype=np.float16),
}


def test_arrays_of_every_kind_come_back_as_they_were(tmp_path):
    path = tmp_path / "arrays.safetensors"
    save(AWKWARD, path)
    loaded = load(path)
    assert sorted(loaded) == sorted(AWKWARD)
    for name, array in AWKWARD.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
        assert loaded[name].shape == array.shape and loaded[name].dtype == array.dtype.newbyteorder("="), name
        assert loaded[name].flags.writeable and loaded[name].flags.c_contiguous, name
    assert np.signbit(loaded["special"][2])
    assert load_metadata(path) == {}


def test_nothing_to_save_is_a_file_too(tmp_path):
    save({}, tmp_path / "nothing")
    assert load(tmp_path / "nothing") == {}


def test_saving_replaces_a_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "model.safetensors"
    save({"a": np.zeros(3)}, path)
    save({"b": np.ones(2)}, path)
    assert list(load(path)) == ["b"]
    assert os.listdir(tmp_path) == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save({"a": np.zeros(3)}, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save({"b": np.ones(2)}, path)
    assert list(load(path)) == ["a"]
    assert os.listdir(tmp_path) == [path.name]


def test_threads_that_write_the_same_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "model.safetensors"
    arrays = [{"a": np.full(1000, i)} for i in range(4)]
    threads = [threading.Thread(target=save, args=(state, path)) for state in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.ptp(load(path)["a"]) == 0
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "state_dict must be a dict of arrays, got list"),
        ({1: np.ones(2)}, "keys of state_dict must be strings, got 1"),
        ({"a": [1.0]}, r"state_dict\['a'\] must be a NumPy array, got list"),
        ({"a": np.ones(2, object)}, r"state_dict\['a'\] must hold bool, integers or floats"),
        ({"a": np.array("text")}, r"state_dict\['a'\] must hold bool, integers or floats"),
        ({"a": np.ones(2, np.longdouble)}, r"state_dict\['a'\] must hold bool, integers or floats"),
        ({"a": np.ma.ones(2)}, r"state_dict\['a'\] must be a NumPy array, got MaskedArray"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, state, message):
    with pytest.raises(ArgumentTypeError, match=message):
        save(state, tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_names_of_the_format_and_other_metadata_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="__metadata__"):
        save({"__metadata__": np.ones(1)}, tmp_path / "x")
    for metadata in ({"a": 1}, {1: "a"}, "text"):
        with pytest.raises(ArgumentTypeError, match="metadata must be a dict of str to str"):
            save({}, tmp_path / "x", metadata)


def test_missing_files_and_folders(tmp_path):
    for read in (load, load_metadata):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read(tmp_path / "absent")
        with pytest.raises(FileFormatError, match="is a folder"):
            read(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save({}, tmp_path / "absent" / "x")


def broken_files(whole):
    yield "empty", b""
    yield "text", b"this is a text, not a network, and long enough to hold a header"
    yield "zip", b"PK\x03\x04" + bytes(200)
    yield "pickle", b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system"
    for cut in (4, 8, 20, len(whole) - 1):
        yield f"cut at {cut}", whole[:cut]
    yield "longer", whole + b"x"
    yield "huge header", b"\xff" * 8 + whole[8:]
    yield "damaged header", whole[:9] + b"\xff" + whole[10:]
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    yield "dtype without a NumPy name", len(header).to_bytes(8, "little") + header + bytes(4)


def test_broken_and_foreign_files_are_named_as_such(tmp_path):
    save({"a": np.arange(4.0)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for name, data in broken_files(whole):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match="is not a safetensors file that can be read"):
            load(path)
        if name != "dtype without a NumPy name":
            with pytest.raises(FileFormatError, match="is not a safetensors file that can be read"):
                load_metadata(path)


def test_module_offers_what_the_package_does():
    import fastconv

    assert fastconv.save is serialization.save and fastconv.load is serialization.load

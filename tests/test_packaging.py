"""What is built from the sources, what it says of itself, and that README, Makefile and CI give the same commands."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastconv

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/fastconv train"
TEST = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest"
DATA = {"fastconv/datasets/digits.npz", "fastconv/datasets/mnist.npz", "fastconv/datasets/README.md"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with a wheel and an sdist, built without network from a copy of the sources."""
    source = tmp_path_factory.mktemp("source") / "fastconv"
    litter = shutil.ignore_patterns(
        ".git", ".venv", ".asv", ".*_cache", ".hypothesis", "*.egg-info", "__pycache__", "_build", "fastconv-output"
    )
    shutil.copytree(ROOT, source, ignore=litter)
    target = tmp_path_factory.mktemp("built")
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return target


def names_in_wheel(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_package_and_nothing_else(built):
    names = names_in_wheel(built)
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fastconv").rglob("*.py")}
    assert sources | DATA | {"fastconv/py.typed"} == {n for n in names if ".dist-info/" not in n}
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)


def test_wheel_works_where_it_is_unpacked(built, tmp_path):
    """Its data are found and its version is the package's, with no checkout in sight."""
    (wheel,) = built.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path, "zip")
    program = "import fastconv as f, fastconv.datasets as d; print(f.__file__, f.__version__, sep='\\n'); d.load_digits(); d.load_mnist()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    file, version = result.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert version == fastconv.__version__


def test_sdist_holds_sources_tests_and_benchmarks(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for pattern in ("fastconv/**/*.py", "tests/*.py", "benchmarks/*.py"):
        assert {p.relative_to(ROOT).as_posix() for p in ROOT.glob(pattern)} <= names
    assert DATA | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "benchmarks/asv.conf.json"} <= names


def test_metadata_says_what_is_needed(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, name.removesuffix("METADATA"))).metadata
    assert metadata["Version"] == fastconv.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-4.0 AND CC-BY-SA-3.0"
    assert set(metadata.get_all("Provides-Extra")) == {"test", "torch", "bench", "docs", "dev"}
    ordinary = {re.split(r"[ <>=]", r)[0] for r in metadata.get_all("Requires-Dist") if "extra ==" not in r}
    assert ordinary == {"numpy", "numba", "safetensors", "matplotlib", "tqdm"}


def test_setup_cfg_keys_are_those_that_setuptools_reads():
    """`python_requires` under any other key or section is lost in silence, and so is the limit."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["options"]["python_requires"] == ">=3.11"
    assert config["options.entry_points"]["console_scripts"].split() == ["fastconv", "=", "fastconv.cli:main"]


def test_embedded_data_load_without_pickle():
    for name in ("digits.npz", "mnist.npz"):
        with np.load(ROOT / "fastconv" / "datasets" / name, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype == np.uint8 for key in arrays)


def test_readme_and_ci_give_the_same_commands():
    readme, makefile = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first_screen = "\n".join(readme.splitlines()[:40])
    for command in (TRAIN, TEST):
        assert f"\n{command}\n" in first_screen
        assert f"\t{command}\n" in makefile
    assert f"\n{TEST}\n" in ci
    assert ci.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in ci
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

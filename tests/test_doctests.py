"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import fastconv


def modules():
    """Every module of fastconv by name, without running its command line."""
    found = pkgutil.walk_packages(fastconv.__path__, "fastconv.")
    return ["fastconv", *(module.name for module in found if not module.name.endswith("__main__"))]


def examples(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(module, name, extraglobs={"np": np}) if test.examples]


EXAMPLES = [test for name in modules() for test in examples(name)]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_example(test, capsys):
    runner = doctest.DocTestRunner(verbose=False)
    result = runner.run(test, clear_globs=False)
    assert result.failed == 0, capsys.readouterr().out


def test_examples_are_found():
    """Where the finder loses functions behind a decorator, their examples would not be run and nobody would know."""
    names = {test.name for test in EXAMPLES}
    assert {"fastconv.functional.conv.conv2d", "fastconv.gradcheck.gradcheck", "fastconv.nn.container.Sequential"} <= names

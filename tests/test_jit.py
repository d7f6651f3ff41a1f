"""How kernels are compiled."""

import gc

import numba
import pytest
from numba.core import compiler

from fastconv.kernels import jit


@pytest.fixture
def compiled_with(monkeypatch, tmp_path):
    """A list that gets, for each function that Numba compiles, whether Python collects garbage meanwhile."""
    seen, compile_extra = [], compiler.compile_extra

    def watched(*arguments, **options):
        seen.append(gc.isenabled())
        return compile_extra(*arguments, **options)

    monkeypatch.setattr(compiler, "compile_extra", watched)
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    return seen


def test_no_garbage_is_collected_while_a_kernel_compiles(compiled_with):
    @jit.device
    def twice(x):
        return x + x

    @jit.kernel
    def four_times(x):
        return twice(twice(x))

    assert gc.isenabled()
    assert four_times(0, 3) == 12
    assert compiled_with == [False, False]  # the second within the first
    assert gc.isenabled()


def test_garbage_is_collected_after_a_kernel_that_does_not_compile(compiled_with):
    @jit.kernel
    def wrong(x):
        return x.nothing

    with pytest.raises(numba.TypingError):
        wrong(0, 3)
    assert compiled_with == [False]
    assert gc.isenabled()


def test_who_collects_no_garbage_still_does_not(compiled_with):
    @jit.kernel
    def same(x):
        return x

    gc.disable()
    try:
        assert same(0, 3) == 3
        assert not gc.isenabled()
    finally:
        gc.enable()

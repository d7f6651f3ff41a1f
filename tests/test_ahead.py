"""Kernels that another process compiles."""

import os
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest

from fastconv import errors, models, nn
from fastconv.kernels import ahead, jit, vector
from fastconv.kernels.host import Host
from fastconv.kernels.jit import dispatcher_of
from fastconv.nn.ahead import calls_of
from fastconv.nn.recording import running


def made(monkeypatch, step):
    """The `ahead.Call`s that `step` makes, while its kernels run."""
    calls, run = [], jit.Kernel.__call__

    def watched(kernel, work, *arguments):
        if isinstance(kernel, Host):
            return run(kernel, work, *arguments)
        form = "serial" if work < jit.SERIAL_BELOW else "parallel"
        calls.append(ahead.Call(kernel.__module__, kernel.__name__, form, tuple(map(kernel.serial.typeof_pyval, arguments))))
        return run(kernel, work, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(jit.Kernel, "__call__", watched)
        step()
    return calls


def images(shape, count):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(models.INPUT_SHAPES))
def test_calls_of_a_network_are_those_that_a_step_makes(name, monkeypatch):
    model = models.create(name, seed=0)
    for count in (2, 33):
        x = images(models.INPUT_SHAPES[name], count)
        expected = calls_of(model, x)
        assert expected
        assert made(monkeypatch, lambda x=x: model.backward_parameters(model(x))) == expected


def test_a_network_is_left_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Dropout(0.2, seed=1), nn.Linear(144, 2)
    )
    nn.manual_seed(5)
    model.backward_parameters(model(images((3, 8, 8), 4)))
    state, gradients = model.state_dict(), [parameter.grad.copy() for parameter in model.parameters()]
    nn.manual_seed(5)
    model[5].rng = np.random.default_rng(1)
    calls_of(model, images((3, 8, 8), 4))
    assert all(np.array_equal(state[key], value) for key, value in model.state_dict().items())
    assert all(map(np.array_equal, gradients, [parameter.grad for parameter in model.parameters()]))
    for parameter in model.parameters():
        parameter.zero_grad()
    model.backward_parameters(model(images((3, 8, 8), 4)))  # of the same random numbers as the first time
    assert all(map(np.array_equal, gradients, [parameter.grad for parameter in model.parameters()]))


def test_kernels_run_again_after_a_recording_that_failed():
    with pytest.raises(errors.FastconvError), ahead.recorded():
        nn.Linear(3, 2)(np.ones((1, 4), np.float32))
    assert nn.Linear(3, 2)(np.zeros((1, 3), np.float32)).shape == (1, 2)


def test_other_threads_kernels_run_while_one_records():
    from concurrent.futures import ThreadPoolExecutor

    relu, x = nn.ReLU(), np.array([[-1, 2]], np.float32)
    with ThreadPoolExecutor(1) as pool, ahead.recorded() as calls:
        assert pool.submit(relu.forward, x).result().tolist() == [[0, 2]]
        assert calls == []
        relu.forward(x)
        assert len(calls) == 1


class Doubled(nn.Module):
    def forward(self, input):
        return 2 * input


@pytest.fixture
def asked(monkeypatch):
    """The lists of calls that another process would get; every kernel counts as about to be compiled."""
    lists = []
    monkeypatch.setattr(ahead, "can_help", lambda: True)
    monkeypatch.setattr(ahead, "compile_elsewhere", lists.append)
    run = jit.Kernel.__call__

    def announced(kernel, work, *arguments):
        for listener in jit.compile_listeners:
            listener(f"{kernel.__name__}.serial")
        return run(kernel, work, *arguments)

    monkeypatch.setattr(jit.Kernel, "__call__", announced)
    return lists


def test_a_network_in_training_asks_for_help(asked):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    model(np.ones((4, 3), np.float32))
    assert [call.name for call in asked[0]] == ["product", "product", "gradients", "gradients"]
    assert running() is None


@pytest.mark.parametrize("case", ["evaluation", "no_grad", "user's module", "user's forward", "user's pass", "no call"])
def test_nothing_else_asks_for_help(case, asked):
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), np.ones((4, 3), np.float32)
    if case == "evaluation":
        model.eval()
    elif case == "user's module":
        model.append(Doubled())
    elif case == "user's forward":
        model[1].forward = lambda input: input
    elif case == "user's pass":
        model.backward_parameters = lambda gradient: None
    if case == "no_grad":
        with nn.no_grad():
            model(x)
    elif case == "no call":
        model.forward(x)
    else:
        model(x)
    assert asked == []


@pytest.mark.parametrize("trouble", ["no copy", "no process", "no folder", "no thread"])
def test_a_network_trains_where_nobody_can_help(trouble, asked, monkeypatch, caplog):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

    def refuse(*arguments, **options):
        raise PermissionError("not here")

    if trouble == "no copy":
        model.lock = threading.Lock()
    elif trouble == "no folder":
        monkeypatch.setattr(ahead, "can_help", refuse)
    elif trouble == "no process":
        monkeypatch.setattr(ahead, "compile_elsewhere", ahead.Helper)
        monkeypatch.setattr(sys, "executable", "/nonexistent/python3")
    else:
        monkeypatch.setattr(ahead, "compile_elsewhere", ahead.Helper)
        monkeypatch.setattr(ahead.threading, "Thread", refuse)
    with caplog.at_level("INFO", "fastconv"):
        assert model(np.zeros((4, 3), np.float32)).shape == (4, 2)
    assert "nobody helps to compile" in caplog.text
    assert asked == []


def test_statistics_without_momentum_are_not_garbage():
    model, x = nn.Sequential(nn.BatchNorm2d(3, momentum=None)), images((3, 4, 4), 2)
    garbage = [np.array(-1) for _ in range(50)]
    del garbage
    assert [call.name for call in calls_of(model, x)] == ["forward", "backward"]


def test_a_pass_that_fails_says_so_itself(asked):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2))
    with pytest.raises(errors.FastconvError, match="input must have shape"):
        model(np.ones((4, 3), np.float32))
    assert asked == []
    assert running() is None


class Fake:
    """Another process, whose file comes, or does not come, while it is waited for."""

    def __init__(self, begun, payload=None):
        self.begun, self.payload, self.waited, self.heard = begun, payload, 0, []

    def has_begun(self, path):
        return self.begun

    def wait(self, path):
        self.waited, self.begun = self.waited + 1, False
        if self.payload:
            path.write_bytes(self.payload)

    def say(self, what, path):
        self.heard.append((what, path.exists()))


def plus_one(x):
    return x + 1


ITS_OWN = [("begun", False), ("done", True)]


@pytest.mark.parametrize(
    ("begun", "comes", "waited", "hits", "heard"),
    [(True, True, 1, 1, []), (True, False, 1, 0, ITS_OWN), (False, False, 0, 0, ITS_OWN)],
)
def test_who_needs_what_the_other_has_begun_waits(begun, comes, waited, hits, heard, monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    first = jit.Kernel(plus_one)
    assert first(0, 1) == 2
    (path,) = tmp_path.iterdir()
    fake = Fake(begun, path.read_bytes() if comes else None)
    path.unlink()
    monkeypatch.setattr(jit, "other", fake)
    second = jit.Kernel(plus_one)
    assert second(0, 1) == 2
    assert fake.waited == waited
    assert fake.heard == heard
    assert sum(second.serial.stats.cache_hits.values()) == hits
    assert path.exists()  # who did not get it has compiled it


def test_who_cannot_write_has_done_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path / "file" / "folder")
    (tmp_path / "file").touch()
    jit._warn_no_cache.cache_clear()
    fake = Fake(False)
    monkeypatch.setattr(jit, "other", fake)
    with pytest.warns(RuntimeWarning, match="cannot keep"):
        assert jit.Kernel(plus_one)(0, 1) == 2
    assert [what for what, _ in fake.heard] == ["begun", "done"]


@pytest.fixture
def two():
    """The two ends: what one says the other hears."""
    pipes = [os.pipe() for _ in range(2)]
    sources, sinks = [[os.fdopen(pipe[k], mode) for pipe in pipes] for k, mode in enumerate(("rb", "wb"))]
    ends = [ahead.Other(source, sink) for source, sink in zip(sources, sinks[::-1], strict=True)]
    listeners = [threading.Thread(target=end.listen) for end in ends]
    for listener in listeners:
        listener.start()
    yield ends
    for sink in sinks:
        sink.close()
    for listener in listeners:
        listener.join()
    for source in sources:
        source.close()


def heard(condition, patience=10):
    """Wait for what the other end says or does."""
    last = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.001)


def test_each_hears_what_the_other_says(two, tmp_path):
    one, other = two
    for end, heard_by in ((one, other), (other, one)):
        path = tmp_path / "kernel.bin"
        assert not heard_by.has_begun(path)
        end.say("begun", path)
        end.say("begun", tmp_path / "more.bin")
        heard(lambda: heard_by.begun == {"kernel.bin", "more.bin"})  # noqa: B023
        assert heard_by.has_begun(path)
        end.say("done", path)
        heard_by.wait(path)
        assert heard_by.begun == {"more.bin"}


def test_who_has_ended_has_begun_nothing(two, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(ahead, "PATIENCE", 1.0)
    one, other = two
    one.say("begun", tmp_path / "kernel.bin")
    heard(lambda: other.begun)
    one.sink.close()
    other.wait(tmp_path / "kernel.bin")
    assert not other.begun
    assert "does not answer" not in caplog.text
    one.say("begun", tmp_path / "kernel.bin")  # to nobody: no error


def test_nobody_waits_for_what_is_interrupted(two, monkeypatch, tmp_path):
    one, other = two
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(jit, "other", one)
    kernel = jit.Kernel(plus_one)

    def interrupted(*arguments, **options):
        heard(lambda: other.begun)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(numba.core.compiler, "compile_extra", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kernel(0, 1)
    heard(lambda: not other.begun)
    assert kernel(0, 1) == 2


def test_code_that_cannot_be_kept_runs(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)

    def lost(self, data):
        raise RuntimeError("no compiled object yet")

    with monkeypatch.context() as patch, caplog.at_level("INFO", "fastconv"):
        patch.setattr(jit.CompileResultCacheImpl, "reduce", lost)
        assert jit.Kernel(plus_one)(0, 1) == 2
    assert "is not kept: no compiled object yet" in caplog.text
    assert not list(tmp_path.iterdir())
    assert jit.Kernel(plus_one)(0, 1) == 2
    assert list(tmp_path.iterdir())


def test_a_line_cut_off_is_no_error(two, tmp_path):
    one, other = two
    for cut in (b"beg", b"\n", b"begun\n"):
        one.sink.write(cut)
    one.say("begun", tmp_path / "kernel.bin")
    heard(lambda: "kernel.bin" in other.begun)
    one.sink.write(b"done ker")
    one.sink.close()
    heard(lambda: not other.begun)


def test_who_waits_in_vain_goes_on(two, monkeypatch, tmp_path, caplog):
    one, other = two
    one.say("begun", tmp_path / "never")
    heard(lambda: other.begun)
    monkeypatch.setattr(ahead, "PATIENCE", 0.05)
    other.wait(tmp_path / "never")
    assert not other.begun
    assert "does not answer" in caplog.text


def test_nobody_helps_where_that_would_not_help(monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path / "fastconv" / "new")
    monkeypatch.setattr(ahead, "_helper", None)
    monkeypatch.setattr(jit, "get_num_threads", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert ahead.can_help()
    monkeypatch.setattr(ahead, "_helper", Helping(False, False))
    assert ahead.can_help()
    for target, name, value in [
        (jit, "get_num_threads", lambda: 1),
        (sys, "executable", "/usr/bin/editor"),
        (sys, "executable", None),
        (os, "access", lambda folder, mode: False),
        (ahead, "_helper", Helping(True, False)),
        (ahead, "_helper", Helping(False, True)),
        (jit, "_forked", True),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert not ahead.can_help()


class Helping:
    """A helper at work, or after that."""

    def __init__(self, at_work, failed):
        self.at_work, self.has_failed = (lambda: at_work), (lambda: failed)


PROGRAM = """
import logging, sys
import numpy as np
from fastconv import nn
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
nn.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3))
gradient = model.backward(model(np.ones((2, 5), np.float32)))
print(gradient.tolist())
"""


def test_two_processes_compile_what_one_would(tmp_path):
    outputs = []
    for threads, folder in (("2", tmp_path / "two"), ("1", tmp_path / "one")):
        environment = {**os.environ, "FASTCONV_CACHE_DIR": str(folder), "NUMBA_NUM_THREADS": threads}
        outputs.append(subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True))
    two, one = outputs
    assert two.stdout == one.stdout
    assert "another process helps to compile" in two.stderr
    assert "gradients" in next(line for line in two.stderr.splitlines() if line.startswith("another process"))
    assert "another process" not in one.stderr
    assert "Traceback" not in two.stderr
    files = [{path.name for path in folder.rglob("*.bin")} for folder in (tmp_path / "two", tmp_path / "one")]
    assert files[1] <= files[0]


def helper_of(calls, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit, "cache_folder", jit.cache_folder.__wrapped__)
    return ahead.Helper(calls)


def test_the_other_process_fails_where_its_cache_is_elsewhere(monkeypatch, tmp_path):
    helper = helper_of([], monkeypatch, tmp_path)
    assert helper.process.wait(60) == 0
    assert not helper.has_failed()
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    helper = ahead.Helper([])
    assert helper.process.wait(60) == 1
    assert helper.has_failed()


def calls_of_a_resnet():
    return calls_of(models.create("resnet20", seed=0), images((3, 32, 32), 64))


def test_the_other_process_ends_with_its_input(monkeypatch, tmp_path):
    helper = helper_of(calls_of_a_resnet(), monkeypatch, tmp_path)
    while not helper.begun:
        time.sleep(0.01)
    helper.process.stdin.close()  # as the system does when the first process ends, however that is
    assert helper.process.wait(10) == 1


def test_a_helper_that_does_not_answer_has_to_end(monkeypatch, tmp_path, caplog):
    helper = helper_of(calls_of_a_resnet(), monkeypatch, tmp_path)
    heard(lambda: helper.begun, 60)
    monkeypatch.setattr(ahead, "PATIENCE", 0.05)
    helper.begun.add("never")
    helper.wait(tmp_path / "never")
    assert helper.has_failed()
    assert "does not answer" in caplog.text


class History(set):
    """A set that knows what was ever added and discarded."""

    def __init__(self):
        super().__init__()
        self.added, self.discarded = [], []

    def add(self, name):
        self.added.append(name)
        super().add(name)

    def discard(self, name):
        self.discarded.append(name)
        super().discard(name)


def test_what_one_process_compiles_the_other_does_not(monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "set", History, raising=False)
    relu, (pack, convolve) = calls_of(nn.ReLU(), np.ones((4, 3), np.float32))[0], calls_of_a_resnet()[:2]
    helper = helper_of([relu, convolve, pack], monkeypatch, tmp_path)
    piece = dispatcher_of(vector.block.py_func, "device", no_cpython_wrapper=True)
    types = (relu.types[0], numba.int64)
    path = piece._cache.path(types, piece.targetctx.codegen())
    for begun in (path, convolve.path()):
        helper.say("begun", begun)
    heard(pack.path().exists, 60)  # ReLU, which cannot be finished, does not keep it waiting
    heard(lambda: helper.begun == {relu.path().name})  # which now waits for its piece
    assert helper.begun.added.count(relu.path().name) == 2
    assert helper.begun.discarded.count(relu.path().name) == 1
    assert not relu.path().exists()
    piece.compile(types)
    assert path.exists()
    helper.say("done", path)
    assert helper.process.wait(60) == 0
    assert relu.path().exists()
    assert not {path.name, convolve.path().name} & {*helper.begun.added}


def test_nothing_is_imported_from_the_folder_it_is_started_in(monkeypatch, tmp_path):
    (tmp_path / "pickle.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert helper_of([], monkeypatch, tmp_path).process.wait(60) == 0

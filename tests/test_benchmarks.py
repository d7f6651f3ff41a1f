"""The benchmarks: their tables hold what they promise, every class of the asv suite runs, the comparison counts as it says."""

import inspect
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    assembly,
    bench_conv,
    bench_models,
    bench_ops,
    bench_startup,
    distance,
    layer,
    report,
    side_fastconv,
    startup,
    survey,
    tile,
    workloads,
)
from benchmarks.rounds import Rounds, sentence
from benchmarks.worker import Worker, WorkerError
from fastconv import functional, models, shapes
from fastconv.kernels import simd
from fastconv.kernels.processor import ADDERS, VECTOR_BYTES

ROOT = Path(__file__).resolve().parents[1]
SUITE = [
    suite
    for module in (bench_conv, bench_ops, bench_models, bench_startup)
    for name, suite in inspect.getmembers(module, inspect.isclass)
    if suite.__module__ == module.__name__ and not name.startswith("_")
]
METHOD = re.compile("(time|timeraw|track|peakmem)_")


def test_grid_is_thirty_shapes_of_every_kind():
    grid = workloads.CONVOLUTIONS.values()
    assert len(workloads.CONVOLUTIONS) == len(set(grid)) == 30
    assert {conv.weight[2] for conv in grid} == {1, 3, 5, 7, 11}
    assert {1, 2, 4} == {conv.stride for conv in grid}
    assert {1, 2} == {conv.dilation for conv in grid}
    assert any(conv.groups == conv.input[1] for conv in grid)
    assert any(1 < conv.groups < conv.input[1] for conv in grid)
    assert set(workloads.REPRESENTATIVE) < set(workloads.CONVOLUTIONS)


@pytest.mark.parametrize("name", workloads.CONVOLUTIONS)
def test_outputs_and_operations_are_those_of_fastconv(name):
    conv = workloads.CONVOLUTIONS[name]
    geometry = shapes.conv2d(conv.input, conv.weight, **conv.options)
    assert conv.output == geometry.output_shape
    assert conv.flops == geometry.flops


def test_tables_name_what_exists():
    for op in {pool.op for pool in workloads.POOLS.values()} | set(workloads.ACTIVATIONS) | set(workloads.LOSSES):
        assert callable(getattr(functional, op))
    assert set(workloads.MODELS) == set(report.STEP_GOALS) == set(models.INPUT_SHAPES)
    assert all(model.input[1:] == models.INPUT_SHAPES[name] for name, model in workloads.MODELS.items())


def test_data_are_seeded_and_channels_last():
    conv = workloads.CONVOLUTIONS["lenet conv2 5x5"]
    first, second = workloads.conv_data(conv), workloads.conv_data(conv)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert [a.shape for a in first] == [conv.input, conv.weight, conv.output]
    assert first[0].transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("suite", SUITE, ids=lambda suite: suite.__name__)
def test_suite_has_names_for_its_parameters(suite):
    parameters, names = getattr(suite, "params", ()), getattr(suite, "param_names", ())
    assert len(parameters) == len(names)
    assert all(isinstance(value, (str, int, float)) for values in parameters for value in values)
    assert any(METHOD.match(name) for name in dir(suite))
    for name in dir(suite):
        assert not name.startswith("track_") or getattr(suite, name).unit


@pytest.mark.parametrize("suite", [s for s in SUITE if s not in (bench_startup.Import, bench_startup.FirstStep)], ids=lambda s: s.__name__)
def test_suite_runs(suite):
    """Each class with its first parameters: set up, then every benchmark of it once."""
    chosen = tuple(values[0] for values in suite.params)
    instance = suite()
    instance.setup(*chosen)
    for name in dir(instance):
        if METHOD.match(name):
            getattr(instance, name)(*chosen)


def test_an_algorithm_that_does_not_take_a_shape_is_left_out(monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("does not fit")

    monkeypatch.setattr(functional, "conv2d", refuse)
    with pytest.raises(NotImplementedError, match="does not fit"):
        bench_conv.Algorithms().setup("lenet conv2 5x5", "direct")


def test_first_step_is_timed_from_the_start_of_python():
    imported, done = startup.first_step("fastconv", path=[ROOT])
    assert 0 < imported < done


def test_asv_configuration():
    text = (ROOT / "benchmarks" / "asv.conf.json").read_text(encoding="utf-8")
    settings = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert settings["environment_type"] == "virtualenv"
    assert settings["launch_method"] == "spawn"
    assert (ROOT / "benchmarks" / settings["repo"]).resolve() == ROOT


def test_asv_can_import_every_module_without_torch_and_without_computing():
    """As asv does it: no module of torch at all, and nothing compiled afterwards."""
    program = """if True:
        import importlib, pkgutil, sys
        sys.modules["torch"] = None
        path = list(sys.path)
        import benchmarks
        for module in pkgutil.iter_modules(benchmarks.__path__):
            importlib.import_module(f"benchmarks.{module.name}")
        from fastconv.kernels import jit
        assert not jit._pool_started
        assert sys.path == path
    """
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_worker_prepares_times_and_says_what_went_wrong(tmp_path):
    with Worker("fastconv", 1) as worker:
        workload = {"kind": "conv", "name": "lenet conv2 5x5", "direction": "forward"}
        worker.ask("prepare", variant="auto", save=str(tmp_path / "result.npy"), **workload)
        assert np.load(tmp_path / "result.npy").shape == (1, *workloads.CONVOLUTIONS["lenet conv2 5x5"].output)
        assert 0 < worker.ask("time", variant="auto", seconds=0.01) < 60
        with pytest.raises(WorkerError, match="ArgumentError"):
            worker.ask("prepare", variant="guess", **workload)
        assert worker.ask("drop") is None
        with pytest.raises(WorkerError, match="KeyError"):
            worker.ask("time", variant="auto", seconds=0.01)


def results(conv=2.0, step=2.0, wrong=()):
    """What `compare.py` gathers, were PyTorch `conv` and `step` times slower in its better layout."""

    def times(factor):
        return {"auto": [0.9, 1.0, 1.1], "nchw": [factor * 1.5] * 3, "channels_last": [factor] * 3}

    common = {"error": {"auto": 1e-6}, "wrong": list(wrong), "refused": {}}
    grid = itertools.product(workloads.CONVOLUTIONS, workloads.PASSES)
    memory = {"auto": {"before": 10 << 20, "peak": 40 << 20}}
    memory |= {"nchw": {"before": 20 << 20, "peak": 80 << 20}, "channels_last": {"before": 20 << 20, "peak": 60 << 20}}
    return {
        "settings": {"threads": [1, 2], "rounds": 3, "seconds": 0.1, "quick": False, "with_torch": True, "algorithms": ["auto"]},
        "machine": {"cpu": "a processor", "architecture": "x", "cores": 2, "vector_bits": 512, "matrices": True, "system": "an OS"},
        "versions": {"fastconv": "1"},
        "took": 60.0,
        "load": 0.1,
        "account": {"kept": 90, "again": 5, "poor": 1, "way": 55.0, "gflops": 233.0},
        "conv": [{"name": n, "direction": d, "seconds": times(conv), "flops": 2e9, "taken": "direct", **common} for n, d in grid],
        "dense": [
            {"name": n, "direction": d, "seconds": times(1.25), **common} for n, d in itertools.product(workloads.LINEARS, workloads.PASSES)
        ],
        "steps": [{"name": n, "seconds": times(step), **common} for n in workloads.MODELS],
        "start": {"fastconv cold": {"import": 0.5, "step": 14.0}, "fastconv warm": {"import": 0.5, "step": 1.5}},
        "memory": [{"name": "lenet5", **memory}],
        "peak": [{"name": "cifar 8 3x3", "direction": "forward", "gflops": 90.0, "limit": 100.0}],
        "scaling": [{"name": "cifar 8 3x3", "direction": "forward", "speedup": 1.95}],
    }


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be told their place")
def test_distance_of_processors():
    processors = len(os.sched_getaffinity(0))
    assert distance.farthest(1) == distance.farthest(processors + 1) == 0.0
    if processors > 1:
        assert 0 < distance.farthest(processors) < 1e6
        assert len(os.sched_getaffinity(0)) == processors


def test_no_distance_where_threads_may_not_choose(monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert distance.farthest(2) == 0.0


class Machine:
    """A worker on a machine whose state is as it is told, one (ns, GFLOP/s) for each time that somebody looks."""

    def __init__(self, states):
        self.states, self.turns = iter(states), []

    def ask(self, do, **arguments):
        if do == "time":
            self.turns.append(arguments["variant"])
            return float(len(self.turns))
        if do == "peak":
            self.way, gflops = next(self.states)
            return gflops
        return self.way


def test_a_round_on_a_machine_that_is_slower_than_it_can_be_is_measured_again():
    good, far, shared = (50.0, 200.0), (300.0, 200.0), (15.0, 100.0)
    machine, rounds = Machine([good, good, far, good, good, shared, good, good]), Rounds(3, 0.0)
    times = rounds.turns([(machine, "ours"), (machine, "theirs")], machine)
    assert times == [[1, 8, 13], [2, 7, 14]]  # turns 3 to 6, and 9 to 12, lie beside a slower look
    assert machine.turns[:6] == ["ours", "theirs", "theirs", "ours", "theirs", "ours"]
    assert rounds.account() == {"kept": 3, "again": 4, "poor": 0, "way": 50.0, "gflops": 200.0}


def test_a_machine_that_stays_slow_is_measured_all_the_same():
    machine, rounds = Machine([(50.0, 200.0)] + [(300.0, 200.0)] * 9), Rounds(2, 0.0)
    assert sentence(rounds.account()) == ""
    assert rounds.turns([(machine, "ours")], machine) == [[5, 6]]
    assert rounds.account()["poor"] == 2
    assert "back in 50 ns" in sentence(rounds.account())
    assert "2 rounds count, 2 of them in spite of this, and 4 were measured again" in sentence(rounds.account())


def test_where_no_distance_is_known_none_is_told():
    machine, rounds = Machine([(0.0, 200.0)] * 3), Rounds(2, 0.0)
    assert rounds.turns([(machine, "ours")], machine) == [[1, 2]]
    assert "processor" not in sentence(rounds.account())


def test_ratios_are_medians_against_the_better_layout():
    row = results(conv=3.0)["conv"][0]
    assert report.ratio(row) == 3.0
    assert report.ratio({**row, "wrong": ["auto"]}) is None
    assert report.memory_ratio(results()["memory"][0]) == 0.75


def test_what_auto_takes_is_held_against_the_fastest():
    row = {"taken": "winograd", "seconds": {"auto": [9.0], "direct": [2.0], "winograd": [2.2], "nchw": [1.0]}}
    assert report.choice(row) == pytest.approx(1.1)
    assert report.choice({**row, "taken": "direct"}) == 1.0
    assert report.choice({**row, "taken": "loops"}) is None
    assert report.choice({**row, "seconds": {"auto": [9.0], "winograd": [2.2]}}) is None
    assert side_fastconv.taken(workloads.CONVOLUTIONS["cifar 8 3x3"], "forward") == "winograd"
    assert side_fastconv.taken(workloads.CONVOLUTIONS["resnet 7 1x1"], "forward") == "direct"
    lenet = [side_fastconv.taken(workloads.CONVOLUTIONS["lenet conv2 5x5"], direction) for direction in workloads.PASSES]
    assert lenet == ["direct", "direct", "winograd" if ADDERS or VECTOR_BYTES < 64 else "direct"]


def test_goals_are_met_or_not():
    met = {what: met for what, _, _, met in report.goals(results(conv=1.5, step=2.1))}
    assert met["one convolution, the slowest of all"] and met["one convolution, geometric mean"]
    assert not met["3x3, stride 1, 32 or more channels, geometric mean"]
    assert met["training step, resnet18"] and not met["training step, vgg_cifar"]
    assert met["first step ever, cold cache"] and not met["first step of a process, warm cache"]
    assert met["direct, 64 or more channels, lowest share of the peak"]
    assert met["more threads, lowest speed-up of the large shapes"]


def test_report_shows_everything_and_draws_it(tmp_path):
    text = report.markdown(results())
    for name in [*workloads.CONVOLUTIONS, *workloads.LINEARS, *workloads.MODELS]:
        assert f"\n| {name} | " in text
    assert "\n| lenet5 | 64 | 1000 | 3000 | 2000 | 2.00 | 5.0 |\n" in text
    report.plot(results(), tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_report_says_when_it_is_no_ground_for_a_claim():
    assert "no ground for a claim" not in report.markdown(results())
    assert "load 3.0" in report.markdown({**results(), "load": 3.0})
    quick = results()
    quick["settings"]["quick"] = True
    assert "quick look" in report.markdown(quick)


def test_report_without_torch_has_no_ratios(tmp_path):
    alone = results()
    alone["settings"]["with_torch"] = False
    for row in alone["conv"] + alone["dense"] + alone["steps"]:
        row["seconds"] = {"auto": row["seconds"]["auto"]}
    alone["memory"] = [{"name": "lenet5", "auto": alone["memory"][0]["auto"]}]
    text = report.markdown(alone)
    assert "no ratios" in text and "| ratio |" not in text
    assert not any("convolution" in what for what, *_ in report.goals(alone))
    report.plot(alone, tmp_path / "results.png")
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_geometric_mean():
    assert math.isclose(report.geometric_mean([1.0, 4.0]), 2.0)


def test_a_survey_draws_convolutions_that_networks_have():
    drawn = survey.draw(random.Random(5), 60)
    assert drawn == survey.draw(random.Random(5), 60) != survey.draw(random.Random(6), 60)
    assert len({kind for kind, _ in drawn}) == 12
    for kind, conv in drawn:
        N, OC, OH, OW = conv.output
        assert min(N, OH, OW) >= 1
        assert OC % conv.groups == 0
        assert conv.input[1] == conv.weight[1] * conv.groups
        assert N == 1 or (conv.flops <= survey.MOST_FLOPS and math.prod(conv.input) + math.prod(conv.output) <= survey.MOST_NUMBERS)
        assert (kind == "depthwise") <= (conv.groups == OC)
        assert (kind == "one image") <= (N == 1)


def test_a_survey_of_algorithms(capsys):
    survey.main(["--algorithms", "--count", "2", "--rounds", "1", "--seconds", "0", "--seed", "3", "--worst", "4"])
    text = capsys.readouterr().out
    assert 'that of what "auto" takes: 6 passes, geometric mean ' in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + 2 + 2 + 4
    with pytest.raises(SystemExit):
        survey.main(["--count", "0"])
    assert "--count must be 1 or more, got 0" in capsys.readouterr().err


def test_a_layer_of_any_shape(capsys):
    layer.main(
        ["2,4,6,5", "6,2,3,3", "--padding", "1", "--groups", "2", "--algorithms", "winograd,loops", "--rounds", "1", "--seconds", "0"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["winograd", "loops"]
    assert all(float(cell) >= 0 for line in lines[2:] for cell in line.split("|")[2:-1])
    layer.main(["2,4,6,8", "6,4,3,3", "--padding", "1", "--maxima", "--algorithms", "direct", "--rounds", "1", "--seconds", "0"])
    assert capsys.readouterr().out.splitlines()[2].startswith("| direct |")
    with pytest.raises(SystemExit):
        layer.main(["2,4,6", "6,2,3,3"])


def test_tile_alone_prints_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(tile, "TURNS", 1)
    tile.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| a line") for line in lines) == 3
    assert sum(line.split("|")[1].strip().isdigit() for line in lines if line.startswith("|")) == tile.MAX_ROWS


@pytest.mark.parametrize("name", assembly.TARGETS)
def test_the_register_tile_does_not_spill(name):
    """Also on processors that this is not: all sums of the tallest tile stay in vector registers."""
    triple, processor, vector_bytes, rows = assembly.TARGETS[name]
    loop = assembly.innermost(assembly.assembly(assembly.module(rows, 2, vector_bytes), triple, processor))
    assert sum(bool(assembly.FMA.search(line)) for line in loop) == 2 * rows * simd.unrolled(vector_bytes, 2)
    assert not [line for line in loop if assembly.STACK.search(line) and re.search(r"[yz]mm|\bq\d|\bv\d", line)]

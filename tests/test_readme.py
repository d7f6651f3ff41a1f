"""README and the pages of docs: their Python blocks run, their links lead somewhere, they know every option of every command."""

import argparse
import doctest
import importlib
import re
from pathlib import Path

import pytest

from benchmarks import readme
from fastconv import cli, datasets

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"`((?:fastconv|tests|benchmarks|docs|kernels|functional|nn|datasets)/[\w/]+\.\w+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page):
    """(first line, source) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: match.start()].count("\n") + 2, match[1]) for match in BLOCK.finditer(text)]


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def small_mnist(monkeypatch):
    """MNIST of a few hundred images: enough to see that a page's program works."""
    x_train, y_train, x_test, y_test = datasets.load_mnist()
    small = datasets.Split(x_train[:512], y_train[:512], x_test[:128], y_test[:128])
    monkeypatch.setattr(datasets, "load_mnist", lambda: small)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch, small_mnist, capsys):
    """One after the other, with what those before have defined; blocks with prompts must also print what they show."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, source in blocks(page):
        if ">>>" in source:
            test = doctest.DocTestParser().get_doctest(source, namespace, page.name, str(page), line)
            result = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
            assert result.failed == 0, capsys.readouterr().out
            namespace.update(test.globs)
        else:
            exec(compile("\n" * (line - 1) + source, str(page), "exec"), namespace)


def test_readme_program_trains_saves_and_predicts(tmp_path, monkeypatch, small_mnist, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    ((_, source),) = blocks(ROOT / "README.md")
    exec(source, namespace)
    assert (tmp_path / "lenet5.safetensors").stat().st_size > 4 * namespace["model"].num_parameters()
    evaluated, predicted = capsys.readouterr().out.splitlines()
    assert evaluated.startswith("{'loss': ") and predicted.count("[") == 2


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_named_in_the_text_exist(page):
    for path in SOURCE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or (ROOT / "fastconv" / path).exists(), f"{name(page)} names {path}"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_command_line_page_has_every_option(command):
    text = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## fastconv {command}\n")[2].partition("\n## ")[0]
    assert section
    parser = argparse.ArgumentParser()
    importlib.import_module(f"fastconv.commands.{command.replace('-', '_')}").add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")} - {"--help"}
    described = {option for row in re.findall(r"^\| (`--.*?) \|", section, re.MULTILINE) for option in re.findall(r"--[a-z-]+", row)}
    assert described == options


def test_results_of_compare_stand_between_the_marks():
    """As benchmarks/readme.py writes them: its marks, picture and tables are those that README.md has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, rest = text.split(readme.BEGIN)
    block, _ = rest.split(readme.END)
    assert f"({readme.PICTURE})" in block
    heads = re.findall(r"^(?:### |<details><summary>)([^<\n]+)", block, re.MULTILINE)
    assert tuple(heads) == readme.ORDER
    results = "# fastconv against PyTorch\n\nhead\n\n" + "".join(f"## {name}\n\ntable of {name}\n\n" for name in reversed(readme.ORDER))
    made = readme.block(results, "Words.\n")
    assert made.startswith("Words.\n\n![")
    assert re.findall(r"table of (.*)", made) == list(readme.ORDER)

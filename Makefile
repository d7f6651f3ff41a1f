# The commands of everyday work; none of them is needed: each is one line that can be typed.
.PHONY: setup test lint format bench compare docs train sizes
PYTHON = .venv/bin/python

setup:           ## a virtual environment with fastconv, editable, and every tool
	python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'

test:            ## the tests, with their own set-up
	python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest

lint: setup      ## what CI checks before the tests
	$(PYTHON) -m ruff check && $(PYTHON) -m ruff format --check && $(PYTHON) -m mypy

format: setup
	$(PYTHON) -m ruff check --fix && $(PYTHON) -m ruff format

bench: setup     ## the asv suite on the last commit
	cd benchmarks && ../.venv/bin/asv machine --yes && ../.venv/bin/asv run HEAD^!

compare: setup   ## fastconv against PyTorch (install the torch extra first), or alone
	$(PYTHON) benchmarks/compare.py

docs: setup      ## docs/_build/html
	$(PYTHON) -m sphinx -W docs docs/_build/html

train:           ## a LeNet-5 on MNIST, with its own set-up
	python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/fastconv train

sizes:           ## lines of each module
	$(PYTHON) -m pytest -q -s tests/test_house.py -k sizes

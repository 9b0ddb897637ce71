# make demo · make test · make lint · make bench · make docs · make wheel · make clean
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lint bench docs wheel clean

# torch is installed first, by its exact pin: an unpinned torch resolves to a build with gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt $(shell find native -type f 2>/dev/null)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $$(find native -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2

bench: $(READY)
	$(BIN)/deltarnn bench

docs: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# An sdist, a wheel built from it, its platform tag, and the tests of engine and layers against it where no compiler is.
wheel: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[wheel]'
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	.ci/check_wheel $(BIN) dist

clean:
	rm -rf build dist $(VENV) docs/_build docs/api docs/tutorial

# Two commands need nothing but Python 3.11 to 3.13: `make quickstart` and `make test`. `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast test-gpu check format bench tables wheel-test clean

BUDGET ?= paper
ARGS ?=

help:  ## this page
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(SETUP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "dkl needs Python 3.11 to 3.13; name one: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,features,sweep]'
	touch $@

setup: $(SETUP)  ## make .venv and install the project in it

quickstart: $(SETUP)  ## the main job on scikit-learn's digits: train, AutoAttack, table; minutes on a CPU
	$(BIN)/dkl reproduce experiment=quickstart paths.results=results/quickstart

reproduce-table-%: $(SETUP)  ## table N of the paper; BUDGET=smoke (seconds), mini (CPU, hours) or paper (GPUs, days; the default)
	$(BIN)/dkl reproduce table=$* budget=$(BUDGET) $(ARGS)

reproduce-figure-%: $(SETUP)  ## figure N of the paper, 2 or 3; BUDGET as above
	$(BIN)/dkl reproduce figure=$* budget=$(BUDGET) $(ARGS)

test: $(SETUP)  ## every test, one process a core
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test-fast: $(SETUP)  ## the tests under a minute each
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m 'not slow'

test-gpu: $(SETUP)  ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

check: $(SETUP)  ## lint, format, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(SETUP)  ## format and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(SETUP)  ## speed and memory against the official way, into results/benchmarks
	$(BIN)/python -m scripts.bench

tables: $(SETUP)  ## fold results/records into results/tables, model_info, figures and the page results/index.html
	$(BIN)/dkl tables --html

wheel-test: $(SETUP)  ## build the wheel and use it in an empty virtual environment, from another folder
	PYTHON=$(PYTHON) bash scripts/wheel_test.sh

clean:  ## remove build products and caches; results stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

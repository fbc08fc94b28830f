# Two commands need nothing but Python 3.11 to 3.13: `make quickstart` and `make test`. `make help` lists the others.

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
# All but trackio, which allows no new Pillow.
EXTRAS := full,dev,digits,docs,features,figures,hub,onnx,segmentation,sweep,tensorboard

# The versions to install; `make setup LOCK=` takes the newest that pyproject.toml allows instead.
LOCK ?= requirements.lock
BUDGET ?= paper
ARGS ?=
comma := ,
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup quickstart tables publish test test-short test-gpu test-oldest test-endurance check format bench docs lock wheel-test dist clean

help:  ## print this page
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# hatchling is among the locked packages, so the editable install needs no isolated build and downloads nothing.
$(SETUP): pyproject.toml $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "dkl needs Python 3.11 to 3.13; choose one: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(if $(LOCK),--requirement $(LOCK),'.[$(EXTRAS)]')
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

setup: $(SETUP)  ## create .venv and install the project there, with the locked versions

quickstart: $(SETUP)  ## train TRADES and IKL on digits, run AutoAttack, write tables and a page: two minutes on a CPU
	$(BIN)/dkl reproduce experiment=quickstart paths.results=results/quickstart html=true

reproduce-table-%: $(SETUP)  ## table N of the paper: BUDGET=smoke (a minute), mini (hours, CPU) or paper (days, GPUs; default)
	$(BIN)/dkl reproduce table=$* budget=$(BUDGET) $(ARGS)

reproduce-figure-%: $(SETUP)  ## figure N of the paper, 2 or 3; BUDGET as for tables
	$(BIN)/dkl reproduce figure=$* budget=$(BUDGET) $(ARGS)

tables: $(SETUP)  ## rebuild results/tables, model_info, figures and index.html from results/records
	$(BIN)/dkl tables --html

publish: $(SETUP)  ## move the records of results/ to results/reference, which is in git, and rebuild its tables and page
	cp -R results/records/. results/reference/records/ && rm -r results/records
	$(BIN)/dkl tables --html results=results/reference
	$(BIN)/python -m scripts.insert_claims

test: $(SETUP)  ## run every test but those of endurance and GPUs, one process per core: eleven minutes on two cores
	$(PYTEST)

test-short: $(SETUP)  ## run all but the tests of whole runs, several processes, every row and choice: four minutes on two cores
	$(PYTEST) -m 'not slow'

test-gpu: $(SETUP)  ## run the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

test-oldest:  ## run the short tests on the oldest torch that is supported, in .venv/oldest: some GB are downloaded
	$(PYTHON) -m venv .venv/oldest
	.venv/oldest/bin/python -m pip install --quiet torch==2.9.1 torchvision==0.24.1 '.[$(EXTRAS)]'
	.venv/oldest/bin/python -m pytest -m 'not slow' -n logical --maxprocesses 4 --dist worksteal

test-endurance: $(SETUP)  ## interrupt hundreds of runs, and other long tests; counts go to results/reliability
	$(BIN)/python -m pytest -m endurance

check: $(SETUP)  ## lint, check formatting, types and the import contract; print the size of dkl/ beside its marks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.house

format: $(SETUP)  ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(SETUP)  ## measure speed and memory against the official implementation, into results/benchmarks; ARGS=losses: one
	$(BIN)/python -m scripts.bench $(ARGS)

docs: $(SETUP)  ## build the documentation as a site in build/site, readable without a network; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(SETUP)  ## update requirements.lock after a change of pyproject.toml; ARGS=--upgrade renews every version
	$(BIN)/uv pip compile pyproject.toml $(addprefix --extra ,$(subst $(comma), ,$(EXTRAS))) --universal --python-version 3.11 \
	  --fork-strategy fewest --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet \
	  --output-file requirements.lock $(ARGS)

wheel-test: $(SETUP)  ## build the wheel, install it and what it requires in an empty environment, use it elsewhere; FRESH=1 downloads
	PYTHON=$(PYTHON) bash scripts/wheel_test.sh

dist: $(SETUP)  ## build wheel, sdist and their checksums in dist/; TAG=v1.0.0 checks that it is the version of the package
	test -z "$(TAG)" || test "$(TAG)" = "v$$($(BIN)/python -c 'import dkl; print(dkl.__version__)')"
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	cd dist && sha256sum * > SHA256SUMS

clean:  ## remove build products and caches; results stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

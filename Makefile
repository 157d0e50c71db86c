# Everything a newcomer needs; `make help` lists it. Nothing but Python 3.11 or newer has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Beside another busy process, torch's spinning threads slow each other down many times.
TEST_ENV := OMP_WAIT_POLICY=passive WANDB_MODE=offline
# A file's tests stay together, since they share fixtures, and in their order, in which the long ones begin.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup run docs wandb-sync test test-reliability format lint types clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

setup: $(READY)  ## create .venv and install losslab with exact versions

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "losslab needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

run: setup  ## train GLO with MMD++ on photographs; more keys by ARGS="seed=1"
	$(BIN)/python src/train.py loss=mmdpp task=glo $(ARGS)

docs: setup  ## write docs/losses.md and docs/layers.md anew from configs, docstrings, graphs and benchmarks/losses.json
	$(BIN)/python docs/make.py
	$(BIN)/python docs/make_layers.py
	$(BIN)/python docs/make_speed.py
	$(BIN)/python docs/make_experiments.py

wandb-sync: setup  ## upload offline Weights & Biases runs, made whole again where a kill has cut them
	$(BIN)/python src/replay.py --sync $(ARGS)

test: setup lint types  ## lint, types and all tests but the long ones; in one process by ARGS="-n 0"
	$(TEST_ENV) $(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-reliability: setup  ## the tests of broken runs, with those that take minutes
	$(TEST_ENV) $(BIN)/python -m pytest tests/reliability -m '' $(ARGS)

format: setup  ## bring the sources into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: setup  ## style, imports, docstrings, annotations, security
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: setup  ## check the types
	$(BIN)/mypy

clean:  ## remove .venv and all caches; outputs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# CV Factory: what a person types. Assumes Python >= 3.11 (< 3.14), make and git, nothing else.
#
# PYTHON=path           the Python to build .venv with (else the newest suitable one in PATH)
# TORCH_BACKEND=cpu     PyTorch without CUDA; kept by later calls until another is named
# ARGS="..."            passed on to run.py, pytest or the benchmarks

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup training test test-engines lint types architecture purity check bench lock \
	schema schema-check clean install install-dev install-engines

PYTHON ?=
TORCH_BACKEND ?=
ARGS ?=
export PYTHON
# Without cached bytecode every process compiles ZenML, MLflow and torch anew: seconds a start.
unexport PYTHONDONTWRITEBYTECODE

python := .venv/bin/python
# Tests of run.py wait for processes that start: two at once take little more than half the time.
workers := --numprocesses logical --maxprocesses 4 --dist loadscope
install := base=$$(sh tools/find_python.sh) && "$$base" tools/install.py --torch-backend "$(TORCH_BACKEND)"

help:  ## list the targets
	@echo "CV Factory: labelled images in, a gated, traceable predictor out."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PYTHON=path, TORCH_BACKEND=cpu (no CUDA), ARGS="..." are understood; see the Makefile.'

setup: install  ## install what is needed, apply the local stack and make it the active one
	@$(python) -m tools.apply_stack local

training: setup  ## set up, then train on the digits that ship in scikit-learn
	$(python) run.py --pipeline training $(ARGS)

test: install-dev  ## install what is needed, run every test that needs no engine
	$(python) -m pytest tests -m "not engines" $(workers) $(ARGS)

test-engines: install-engines  ## run the tests that need engines, such as a browser, and of AWS's stack
	$(python) -m pytest tests -m engines $(ARGS)

lint: install-dev  ## ruff: lint and format
	$(python) -m ruff check .
	$(python) -m ruff format --check .

types: install-dev  ## mypy
	$(python) -m mypy

architecture: install-dev  ## import-linter: arrows point down only
	PYTHONPATH=. .venv/bin/lint-imports --no-logo --cache-dir .venv/.import_linter_cache

purity: install-dev  ## no pickle, nothing done at import time, a fast run.py --help
	$(python) -m tools.check_purity

schema: install-dev  ## write configs/schema/ from cv_factory.config.training
	$(python) -m tools.schema

schema-check: install-dev
	$(python) -m tools.schema --check

check: lint types architecture purity schema-check  ## everything above that is not a test

bench: install-dev  ## run the benchmarks (ARGS=name for one)
	$(python) -m benchmarks $(ARGS)

lock: install-dev  ## resolve requirements.lock anew from pyproject.toml (ARGS=--upgrade for newer versions)
	$(python) -m tools.lock $(ARGS)

clean:  ## remove .venv and caches; runs, models and data stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install:
	@$(install)

install-dev:
	@$(install) --extra dev --extra sources --extra backbones

install-engines:
	@$(install) --extra dev --extra sources --extra backbones --extra aws

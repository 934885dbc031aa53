# CV Factory: what a person types. Assumes Python >= 3.11 (< 3.14), make and git, nothing else.
#
# PYTHON=path           the Python to make .venv with (else the newest suitable one in PATH)
# TORCH_BACKEND=cpu     PyTorch without CUDA; kept by later calls until another is named
# EXTRAS="sources aws"  extras of pyproject.toml to install besides; kept by later calls
# ARGS="..."            passed on to run.py, pytest or the benchmarks

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup training test-fast test test-engines lint types architecture check bench lock \
	schema schema-check clean install install-dev install-engines FORCE

PYTHON ?=
TORCH_BACKEND ?=
EXTRAS ?=
ARGS ?=
export PYTHON
# uv gives up on a file after 30 s by default, which is short for the 500 MB of torch.
export UV_HTTP_TIMEOUT ?= 300
# Without cached bytecode every process compiles ZenML, MLflow and torch anew: seconds a start.
unexport PYTHONDONTWRITEBYTECODE

python := .venv/bin/python
dev_extras := dev sources backbones heif slack
# tests/conftest.py says how many.
workers := --numprocesses auto --maxprocesses 4 --dist worksteal

help:  ## list the targets
	@echo "CV Factory: labelled images in, a gated, traceable predictor out."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PYTHON=path, TORCH_BACKEND=cpu (no CUDA), EXTRAS=sources, ARGS="..." are understood;'
	@echo '  see the Makefile.'

setup: install  ## install what is needed, apply the local stack and make it the active one
	@$(python) -m stacks apply local --set

training: setup  ## set up, then train on the digits that ship in scikit-learn
	$(python) run.py --pipeline training $(ARGS)

test-fast: install-dev  ## run the fast unit tests, in about a minute
	$(python) -m pytest tests/unit -m "not engines and not slow" $(workers) $(ARGS)

test: install-dev  ## install what is needed, run every test that needs no engine
	$(python) -m pytest tests -m "not engines" $(workers) $(ARGS)

test-engines: install-engines  ## run the tests that need engines, such as a browser, and of AWS's stack
	$(python) -m pytest tests -m engines --numprocesses 2 --dist loadfile $(ARGS)

lint: install-dev  ## ruff: lint, format and forbidden imports
	$(python) -m ruff check .
	$(python) -m ruff format --check .

types: install-dev  ## mypy
	$(python) -m mypy

architecture: install-dev  ## import-linter: arrows point down only
	PYTHONPATH=. .venv/bin/lint-imports --no-logo --cache-dir .venv/.import_linter_cache

schema: install-dev  ## write configs/schema/ from cv_factory.config
	$(python) -m tools.schema

schema-check: install-dev
	$(python) -m tools.schema --check

check: lint types architecture schema-check  ## everything above that is not a test

bench: install-dev  ## run the benchmarks (ARGS=name for one)
	$(python) -m benchmarks $(ARGS)

lock: install-dev  ## resolve requirements.lock anew from pyproject.toml (ARGS=--upgrade for newer versions)
	$(python) -m tools.lock $(ARGS)

clean:  ## remove .venv and caches; runs, models and data stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installation. A stamp in .venv is written when what it names is complete, so an interrupted
# installation is repeated.
stamp := .venv/.installed
install: $(stamp) $(EXTRAS:%=$(stamp)-%)
install-dev: install $(dev_extras:%=$(stamp)-%)
install-engines: install-dev $(stamp)-aws

# Recipes ask when they run: .venv/bin/uv may be installed by one of them.
uv = $$(uv --version >/dev/null 2>&1 && echo uv || echo .venv/bin/uv)
kept_backend = $$(cat .venv/.torch-backend 2>/dev/null)
# The lock as constraints, not as requirements: a CPU build must not pull the CUDA packages.
# Without a terminal uv would write a line for each of some 200 packages.
uv_install = backend="$(kept_backend)"; NO_COLOR=1 $(uv) pip install --python $(python) \
	$$([ -t 2 ] || echo --quiet) \
	-r pyproject.toml -c requirements.lock $${backend:+--torch-backend "$$backend"}
kept_extras = $$(ls $(stamp)-* 2>/dev/null | sed 's/.*-/--extra /')

$(stamp): .venv/.made pyproject.toml requirements.lock
	@$(announce)
	@$(uv_install) $(kept_extras) || { $(explain); exit 1; }
	@touch $@

$(stamp)-%: $(stamp)
	@$(uv_install) --extra $* || { $(explain); exit 1; }
	@touch $@

# Sizes measured on Linux (uv's cache empty), in GB to download and on disk.
announce = if [ -f $(stamp) ]; then echo "Bringing .venv up to date."; \
	elif [ "$(kept_backend)" = cpu ]; then \
		echo "Installing into .venv: about 0.5 GB to download, 2.1 GB on disk."; \
	elif [ "$$(uname)" = Linux ]; then \
		echo "Installing into .venv: about 3 GB to download (less what uv has cached), 6 GB on disk."; \
		echo "  Most of it is PyTorch with CUDA. Without an NVIDIA GPU take the small build (0.5 GB):"; \
		echo "  make setup TORCH_BACKEND=cpu"; \
	else echo "Installing into .venv: about 0.4 GB to download, 2 GB on disk."; fi

explain = echo "Installation failed: uv's message stands above."; \
	case "$$($(python) --version)" in *" 3.13"*) \
		echo "Python 3.13 needs a C++ compiler for python-rapidjson; 3.12 and 3.11 do not: PYTHON=python3.12";; \
	esac

# .venv is kept where it runs, was made in this place (its scripts name it), and has the Python and
# the PyTorch that are named, if any are. uv keeps the torch of another backend: hence made anew.
.venv/.made: FORCE
	@base=; [ -z "$(PYTHON)" ] || base=$$(sh tools/find_python.sh) || exit 1; \
	backend="$(or $(TORCH_BACKEND),$(kept_backend))"; \
	version() { "$$1" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null; }; \
	if [ -n "$$(version $(python))" ] \
		&& grep -qF "$(CURDIR)/.venv" .venv/bin/activate 2>/dev/null \
		&& [ "$$backend" = "$(kept_backend)" ] \
		&& { [ -z "$$base" ] || [ "$$(version "$$base")" = "$$(version $(python))" ]; }; \
	then [ -f $@ ] || touch $@; else \
		if [ -e .venv ] && [ ! -e .venv/pyvenv.cfg ] && [ -n "$$(ls -A .venv)" ]; then \
			echo ".venv exists and is no virtual environment: move it away." >&2; exit 1; fi; \
		base=$${base:-$$(sh tools/find_python.sh)} || exit 1; \
		extras=$$(ls $(stamp)-* 2>/dev/null); rm -rf .venv; \
		if uv --version >/dev/null 2>&1; then \
			uv venv --quiet --seed --python "$$base" "$(CURDIR)/.venv" || exit 1; \
		elif ! "$$base" -m venv "$(CURDIR)/.venv"; then \
			rm -rf .venv; \
			echo "Python's venv module is incomplete here: install it (Debian: apt install" >&2; \
			echo "python3-venv), or install uv." >&2; exit 1; \
		fi; \
		printf '%s' "$$backend" >.venv/.torch-backend; touch $$extras $@; \
	fi; \
	uv --version >/dev/null 2>&1 || .venv/bin/uv --version >/dev/null 2>&1 || { \
		echo "uv is not in PATH: installing it into .venv with pip."; \
		$(python) -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'; }

# Everything the project does, from a fresh clone on a machine with Python and make.

BIN := .venv/bin
READY := .venv/.ready
EXTRAS := app,cluster,runtimes,video

# The Python that makes the environment: python3.11, with which the published study was run, else python3.
SUITS = import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell python3.11 -c '$(SUITS)' 2>/dev/null && echo python3.11 || echo python3)

.PHONY: help env extras reproduce test test-all figures publish lab weights clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

env: $(READY) ## the environment in .venv; every other target sees to it (PYTHON=... chooses the Python)

extras: $(READY) ## other runtimes, a cluster, videos, what the examples need: pyproject.toml's extras
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	  --no-build-isolation --editable ".[$(EXTRAS)]"

reproduce: $(READY) ## a quick study of this machine, its figures and notebooks under build/, beside the published numbers
	@$(BIN)/python -m udnet reproduce

test: $(READY) ## the linters and the tests, some minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-all: $(READY) ## what takes longer, after `make test`: exports, compiling, every notebook, a browser
	$(BIN)/python -m pytest -m slow

figures: $(READY) ## redraw figures/ from the published study
	@$(BIN)/python -m udnet figures

publish: $(READY) ## the full study, the notebooks and the figures, in place (maintainers)
	@$(BIN)/python -m udnet publish

lab: $(READY) ## JupyterLab, with the notebooks open and the rest of the folder in reach
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

weights: $(READY) ## fetch the published weights into data/weights/
	@$(BIN)/python -m udnet fetch

clean: ## remove build/ and the caches of this folder; .venv stays
	@rm -rf build udnet.egg-info .pytest_cache .ruff_cache
	@find udnet tests notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	@echo "Removed build/ and the caches of this folder. Stand-in weights in your cache folder: $(BIN)/python -m udnet clean"

# The stamp is written last and the environment made anew whenever the stamp is older than the lock, so that one that
# was interrupted half-way, or made from another lock, is never taken for a whole one.
$(READY): requirements.lock
	@$(PYTHON) -c '$(SUITS)' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' is not a Python 3.11, 3.12 or 3.13 with venv: install one and name it: make env PYTHON=python3.11" >&2; \
	  exit 1; }
	@echo "Making the environment in .venv from requirements.lock: once, a few minutes"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# All set-up and checks. `make demo` and `make test` work on a fresh machine with Python >= 3.11 and make.
# The environment lives in .venv; VENV=DIR puts it elsewhere, PYTHON=... chooses the interpreter.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
            $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq -c constraints.txt

# One thread a process: several workers with spinning threads are many times slower than one thread each.
QUIET_THREADS := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: help demo test lint check benchmark install clean

help:
	@echo "make demo       detect small targets in the sample scenes; pictures and a table in demo/"
	@echo "make test       run the tests"
	@echo "make lint       ruff and mypy"
	@echo "make check      lint and test, what CI runs"
	@echo "make benchmark  time the hot paths on one thread; the times are kept in .benchmarks/"
	@echo "make install    the environment for development, in $(VENV)"
	@echo "make clean      remove $(VENV) and demo/"

demo: $(VENV)/.run-time
	$(BIN)/ismallnet detect examples/scenes/images --out demo --force
	@echo "The overlays and the table are in $(CURDIR)/demo"

test: $(VENV)/.development
	$(QUIET_THREADS) $(BIN)/python -m pytest -n auto

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

check: lint test

benchmark: $(VENV)/.development
	$(QUIET_THREADS) $(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-autosave --benchmark-columns=min,median,iqr,rounds

install: $(VENV)/.development

clean:
	rm -rf $(VENV) demo

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; install one, or say make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-time: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the run-time package in $(VENV) (a minute or two)"
	$(PIP) -e .
	@touch $@

# pyirstdmetrics asks for numpy < 2 but works with 2; --no-deps keeps pip from searching for a way out.
$(VENV)/.development: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the package and the development tools in $(VENV) (a few minutes)"
	$(PIP) -e '.[dev]' scikit-image
	$(PIP) --no-deps pyirstdmetrics
	@touch $@ $(VENV)/.run-time

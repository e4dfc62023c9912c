# Every target sets up .venv by itself when it is not there, and reuses it after.
# PYTHON=python3.12 make setup   picks another interpreter;   VENV=... another place;   EXTRAS=... other extras.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

# Where it is, the tests run transformers 4 beside transformers 5; a Python of your own can be named instead.
ORACLE4 ?= .venv4
ORACLE4_READY := $(ORACLE4)/.ready
export DATA2VEC_TRANSFORMERS4_PYTHON ?= $(if $(wildcard $(ORACLE4_READY)),$(abspath $(ORACLE4))/bin/python)

# Two test workers with one thread each: tests are many and small.
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1

.PHONY: help setup oracle4 demo test test-all check format bench docs clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## create .venv with everything that tests and the demo need

# torch first and by the pinned version: which build of torch fits the machine is the user's choice, not a dependency's.
$(READY): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

oracle4: $(ORACLE4_READY) ## create .venv4 with transformers 4, against which make test then compares too

$(ORACLE4_READY): tests/parity/transformers4.txt
	test -x $(ORACLE4)/bin/python || $(PYTHON) -m venv $(ORACLE4)
	$(ORACLE4)/bin/python -m pip install --quiet --requirement $<
	@touch $@

demo: $(READY) ## pre-train on embedded data in all three modalities and show what was learned
	$(PY) -m data2vec demo

test: $(READY) ## run the tests (fast ones; at most 10 minutes on two cores)
	$(PY) -m pytest -q -n $(WORKERS)

test-all: $(READY) ## run every test, the slow ones too
	$(PY) -m pytest -q -n $(WORKERS) -m ''

check: $(READY) ## lint, formatting, types, import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/meta/test_imports.py

format: $(READY) ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY) ## measure import time and the pre-training step
	$(PY) benchmarks/import_time.py
	$(PY) benchmarks/pretrain_step.py

docs: $(READY) ## build the documentation into site/
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(PY) -m mkdocs build --strict

clean: ## remove what the targets made, the environment too
	rm -rf $(VENV) $(ORACLE4) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/mustdrop.yaml
PICTURE ?= samples/gradient.png
QUESTION ?= what is the blue shape?
WORKERS ?= 2
OLDEST ?= 5.18.0
LEVELS ?= default avx2 avx512
THREADS ?= 1 2
bin := $(VENV)/bin

.PHONY: demo test lint types suite slow portable oldest matrix bench eval pictures clean

demo: $(VENV)/.installed
	$(bin)/vtc run --recipe $(RECIPE) $(PICTURE) "$(QUESTION)" --baseline --overlay overlay.png

test: lint types suite

lint: $(VENV)/.dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types: $(VENV)/.dev
	$(bin)/mypy

suite: $(VENV)/.dev
	$(bin)/python -m pytest -q -n $(WORKERS)

# What takes minutes and is left out of `make test`.
slow: $(VENV)/.dev
	$(bin)/python -m pytest -q -m "slow and not gpu and not net" -n $(WORKERS)

# Tests that compare floats, with the instructions of other machines; two minutes a level and number of threads.
portable: $(VENV)/.dev
	$(bin)/python -m tests.portable --levels $(LEVELS) --threads $(THREADS)

# The engine on the oldest transformers that pyproject.toml allows.
oldest: $(VENV)/.dev
	$(bin)/pip install -q --no-deps --target $(VENV)/oldest --upgrade transformers==$(OLDEST)
	PYTHONPATH=$(VENV)/oldest $(bin)/python -m pytest -q tests/engine

# Every recipe on every family, in all precisions; half an hour on two cores.
matrix: $(VENV)/.dev
	$(bin)/python -m tests.conformance.write

bench: $(VENV)/.installed
	$(bin)/python benchmarks/startup.py
	$(bin)/python benchmarks/prefill.py
	$(bin)/python benchmarks/analysis.py --long
	$(bin)/python benchmarks/video.py
	$(bin)/python benchmarks/metok.py --frames 16
	$(bin)/python benchmarks/stages.py
	$(bin)/python benchmarks/batch.py

# docs/eval.md: every shipped method beside its baselines, at three budgets, over 400 items.
eval: $(VENV)/.installed
	$(bin)/python -m benchmarks.evaluation $(if $(LIMIT),--limit $(LIMIT))

# The pictures of README and docs.
pictures: $(VENV)/.installed
	PATH="$(CURDIR)/$(bin):$$PATH" docs/pictures.sh

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "vtc needs Python 3.11 to 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(bin)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(bin)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist overlay.png

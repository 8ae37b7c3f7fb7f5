# `make demo` and `make test` are the only commands a fresh clone needs: each makes .venv itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test lint sweep bench clean

$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

$(VENV)/test: $(VENV)/base
	$(PIP) --editable ".[test,lint]"
	touch $@

$(VENV)/demo: $(VENV)/base requirements-demo.txt
	$(PIP) --editable ".[demo]"
	$(PIP) --no-deps --requirement requirements-demo.txt
	touch $@

$(VENV)/sweep: $(VENV)/test requirements-sweep.txt
	$(PIP) --no-deps --requirement requirements-sweep.txt
	touch $@

demo: $(VENV)/demo
	$(BIN)/quantfx demo

test: $(VENV)/test lint
	$(BIN)/pytest

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

# The whole of what CI runs a seeded subset of: large networks, all random configurations.
sweep: $(VENV)/sweep
	$(BIN)/pytest -m sweep

# What matching and the passes cost on large graphs.
bench: $(VENV)/base
	$(BIN)/python -m quantfx.tools.bench_passes

clean:
	rm -rf $(VENV) demo-out

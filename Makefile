# `make demo` and `make test` are the only commands a fresh clone needs: each makes .venv itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --constraint constraints.txt

# Processes that run tests. Each takes 1.5 GB; a file's tests stay together, for what they share.
WORKERS ?= 2

.PHONY: demo test lint ruff mypy pyright sweep bench clean

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
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20

# Side by side: the two type checkers take a minute each.
lint: $(VENV)/test
	$(MAKE) --jobs 2 --output-sync=target ruff pyright mypy

ruff: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: $(VENV)/test
	$(BIN)/mypy

pyright: $(VENV)/test
	$(BIN)/pyright --pythonpath $(BIN)/python

# The whole of what CI runs a seeded subset of: large networks, all random configurations.
sweep: $(VENV)/sweep
	$(BIN)/pytest -m sweep

# What matching and the passes cost on large graphs.
bench: $(VENV)/base
	$(BIN)/python -m quantfx.tools.bench_passes

clean:
	rm -rf $(VENV) demo-out

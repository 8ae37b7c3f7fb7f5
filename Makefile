# `make demo` and `make test` are the only commands a fresh clone needs: each makes .venv itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
# To bytecode on all cores, which pip does on one; what is not Python 3 among the data stays as it is.
COMPILE = @$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# Processes that run tests; a third on two cores takes longer.
# Each takes 1.5 GB; a file's tests stay together, for what they share.
WORKERS ?= 2
TOGETHER := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20

# The versions that quantfx/patterns/torch_version.py says are tested.
TESTED := $(shell sed -n 's/^TESTED = (\(.*\))$$/\1/p' patterns/torch_version.py | tr -d '",')
MATRIX := .matrix
# What of the tests `make matrix` runs: all, or e.g. TESTS=tests/test_api.py.
TESTS ?=

.PHONY: demo test lint ruff mypy pyright sweep mutants emulate matrix bench zoo docs release-check clean

$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	$(COMPILE)
	touch $@

$(VENV)/test: $(VENV)/base
	$(PIP) --editable ".[test,lint,direct]"
	$(COMPILE)
	touch $@

$(VENV)/demo: $(VENV)/base requirements-demo.txt
	$(PIP) --editable ".[demo,direct]"
	$(PIP) --no-deps --requirement requirements-demo.txt
	$(COMPILE)
	touch $@

$(VENV)/sweep: $(VENV)/test requirements-sweep.txt
	$(PIP) --no-deps --requirement requirements-sweep.txt
	$(COMPILE)
	touch $@

$(VENV)/zoo: $(VENV)/test requirements-zoo.txt
	$(PIP) --no-deps --requirement requirements-zoo.txt
	$(COMPILE)
	touch $@

$(VENV)/docs: $(VENV)/base
	$(PIP) --editable ".[docs]"
	$(COMPILE)
	touch $@

$(VENV)/release: $(VENV)/base
	$(PIP) --editable ".[release]"
	$(COMPILE)
	touch $@

demo: $(VENV)/demo
	$(BIN)/quantfx demo

# Compiled to bytecode once: where the environment forbids writing it, each of the processes that tests
# start would compile the package anew.
test: $(VENV)/test lint
	$(BIN)/python -m compileall -q -j $(WORKERS) quantfx passes backends patterns tools
	$(BIN)/pytest $(TOGETHER)

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

# Bugs put into the passes, one at a time: does the fuzzer find them? Ten minutes, not in CI.
mutants: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/run.py

# Tests of kernels on emulated CPUs with AVX512-VNNI, AMX and AVX-VNNI (tests/emulated): hours, not in
# CI. MODEL=tigerlake runs one CPU, TESTS=tests/backends/direct other tests.
MODEL ?=
emulate: $(VENV)/test
	$(BIN)/python -m tests.emulated $(MODEL:%=--model %) $(if $(TESTS),-- $(TESTS))

# The tests on each version of torch, in an environment of its own, one after the other, to the end.
# Gigabytes and hours: not in CI. Those newer than constraints.txt are CUDA builds, run on the CPU;
# PIP_CONSTRAINT lifts a cap on torch that a machine may have set for pip.
matrix:
	$(MAKE) --keep-going $(TESTED:%=matrix-%)

matrix-%: $(MATRIX)/%/test
	CUDA_VISIBLE_DEVICES= $(MATRIX)/$*/bin/python -m pytest $(TOGETHER) $(TESTS)

$(MATRIX)/%/test: pyproject.toml
	$(PYTHON) -m venv $(MATRIX)/$*
	PIP_CONSTRAINT=/dev/null $(MATRIX)/$*/bin/pip install --quiet torch==$* --editable ".[test]"
	touch $@

.PRECIOUS: $(MATRIX)/%/test

# What matching and the passes cost on large graphs.
bench: $(VENV)/base
	$(BIN)/python -m quantfx.tools.bench.passes

# About a hundred published architectures, into ZOO.md: hours, not in CI. It goes on where it was
# stopped; ONLY=resnet18,bert measures these again, FRESH=1 all of them, JOBS=2 two at a time.
ONLY ?=
FRESH ?=
JOBS ?= 1
zoo: $(VENV)/zoo
	$(BIN)/python -m quantfx.tools.zoo.run --jobs $(JOBS) $(ONLY:%=--only %) $(if $(FRESH),--fresh)

# Into .site/index.html. Once its packages are there, nothing is fetched; a minute.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Wheel and sdist into dist/: what is in them, what PyPI says of them, and the quick start with the wheel in
# an environment of its own outside of the clone. Minutes, and torch once more: not in CI.
release-check: $(VENV)/release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.release.check_dist dist

clean:
	rm -rf $(VENV) $(MATRIX) .zoo .emulated .site build dist demo-out

"""Fixtures of all tests, and how Inductor compiles in them."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

# Read when Inductor is first imported, here and in the processes that tests start. The generated
# code is the same; what it costs beside the compiler is not, in each process: a pool of workers
# that import torch, and one more that tries whether this CPU runs its own instruction set.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# Read when torch is first imported. Two processes fill two cores with a thread each. Tests of kernels
# have two threads: those that wait for work would keep the cores from those that have some.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Tests of the operators that torch has name these; tests/backends/direct asks for plans.
os.environ.setdefault("QUANTFX_KERNELS", "onednn")

from quantfx.backends.direct.runtime.library import runtime
from quantfx.tools.models.digits import DigitsRun, train_digits
from tests import fast_linker
from tests.sampled import mark_sampled, mark_swept
from tests.snapshot import DotSnapshotExtension

fast_linker.use()

BACKENDS = Path(__file__).parent / "backends"

# Begun first: a file is run by one process, and the other would wait for these in the end. The
# first compiles Inductor's headers for both processes, so the second does not compile.
LONGEST = (
    "backends/inductor/test_compile.py",
    "test_bisect_model.py",
    "dynamo/test_auto.py",
    "backends/inductor/test_compiled_2_13.py",
    "backends/inductor/test_fuse_sums.py",
    "test_data_sizes.py",
    "tools/fuzz/test_fuzz.py",
    "test_reduce_model.py",
    "backends/direct/test_lowering_again.py",
    "test_onnx_2_13.py",
    "backends/inductor/test_static_graph.py",
    "backends/inductor/test_ahead_of_time.py",
    "test_specialized_calls.py",
    "dynamo/test_lower.py",
    "passes/inputs/test_fits_traced.py",
    "test_global_state_2_13.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest takes out what is marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and of SAMPLED tables all but a part into the sweep."""
    mark_sampled(items)
    mark_swept(items)
    files = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(map(Path.exists, files)), "a file of LONGEST is gone"
    items.sort(key=lambda item: files.get(item.path, len(files)))


def pytest_sessionstart() -> None:
    """Let one of two processes compile the largest library while the other compiles the rest."""
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        runtime()


def pytest_collection_finish() -> None:
    """Keep the collector from walking all of torch's objects again and again: a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # one export makes more than the default's 700 objects


@pytest.fixture(autouse=True)
def threads_of_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give tests of backends two threads, as kernels divide work among threads."""
    if not request.path.is_relative_to(BACKENDS):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def graph_snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compare a graph with its stored drawing: ``assert module == graph_snapshot(name="qdq")``."""
    return snapshot.use_extension(DotSnapshotExtension)


@pytest.fixture(scope="session")
def trained_digits() -> DigitsRun:
    """Trained once, which takes seconds; tests take ``digits``."""
    return train_digits()


@pytest.fixture
def digits(trained_digits: DigitsRun) -> DigitsRun:
    """A network trained on scikit-learn's digits, and its data: a copy, to do anything with."""
    return copy.deepcopy(trained_digits)

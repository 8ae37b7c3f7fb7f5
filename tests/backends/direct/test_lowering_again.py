"""Tests of lowering that name no kernel, once more with prepared plans."""

from collections.abc import Iterator, Sequence

import pytest
from torch import Tensor

from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.runtime.plan import Plan
from tests.backends.test_lowered_ops import test_kernels_compute_what_the_qdq_graph_does
from tests.passes.lower.test_restore_layouts import (
    test_a_layout_of_the_capture_is_kept_whichever_it_is,
    test_compiled_memory_holds_it_too,
    test_compiled_views_work_in_every_layout,
    test_memory_holds_what_the_graph_had_there,
    test_views_work_in_every_layout_at_every_size,
)

__all__ = [
    "test_a_layout_of_the_capture_is_kept_whichever_it_is",
    "test_compiled_memory_holds_it_too",
    "test_compiled_views_work_in_every_layout",
    "test_kernels_compute_what_the_qdq_graph_does",
    "test_memory_holds_what_the_graph_had_there",
    "test_views_work_in_every_layout_at_every_size",
]


@pytest.fixture(scope="module", autouse=True)
def plans_run() -> Iterator[None]:
    """See to it that these tests ran plans, and not what they ran before."""
    run, calls = Plan.run, 0

    def counted(self: Plan, inputs: Sequence[Tensor]) -> list[Tensor]:
        nonlocal calls
        calls += 1
        return run(self, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "run", counted)
        yield
    assert calls or runtime().reason

"""What is said at Dynamo's limit of graphs, and that Result.compile() says it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quantfx
from quantfx.backends.inductor.compile_attempts import Attempt
from quantfx.backends.inductor.recompile_limit import explain_limit, frequent_guard
from quantfx.backends.inductor.torch_internals import SHARED_REGION, ReachedLimit
from quantfx.patterns.errors import QuantfxWarning
from tests.refusals import warned

OTHER = "1/0: ___check_obj_id(self, 139635) "
COUNTER = "0/7: self.n == {n}      # self.n += 1  # model.py:5 in forward (HINT: make it dynamic)"


def function() -> None:
    """Have some code."""


def explained(*reasons: str, is_strict: bool = False) -> str:
    limit = ReachedLimit("recompile_limit", 8, lambda: list(reasons), ())
    attempt = Attempt(
        function.__code__, owner=None, region=SHARED_REGION, is_strict=is_strict, limit=limit
    )
    return explain_limit(attempt, limit, "are slow")


def test_the_guard_that_fails_most_often_is_named() -> None:
    counters = [COUNTER.format(n=n) for n in (3, 4, 5)]
    size = "0/2: tensor 'x' size mismatch at index 0. expected 3, actual 4"
    assert frequent_guard([size, *counters]) == ("self.n == 3", 3, 4)
    assert frequent_guard([OTHER, OTHER, size]) == (size.removeprefix("0/2: "), 1, 1)
    assert frequent_guard([OTHER]) == ("___check_obj_id(self, 139635)", 1, 1)
    assert frequent_guard([]) == ("", 0, 0)


@pytest.mark.parametrize(
    ("reason", "way"),
    [
        (COUNTER.format(n=3), "make it a tensor (register_buffer)"),
        ("tensor 'x' size mismatch at index 0. expected 3, actual 4", "Free the sizes"),
        ("len(xs) == 3", "Free the sizes"),
        (OTHER, "isolate_recompiles=True"),
        ("Cache line invalidated because L['fn'] got deallocated", "quantfx.auto(model)"),
        ("self.training == True", "eval()"),
        ("GLOBAL_STATE changed: grad_mode ", "one setting of gradients and autocast"),
        ("tensor 'x' dtype mismatch. expected Float, actual Double", "one dtype"),
        ("something else", "Keep what the guard names the same"),
        ("", "to allow more graphs"),
    ],
)
def test_each_cause_has_its_way_out(reason: str, way: str) -> None:
    text = explained(*([reason] if reason else []))
    assert way in text
    assert "torch._dynamo.config.recompile_limit" in text
    assert text.startswith("function (")
    assert "are slow" in text


def test_a_refusal_says_so() -> None:
    text = explained("self.n == 3", is_strict=True)
    assert "are refused, as fullgraph=True" in text
    assert "are slow" not in text


def test_a_compiled_result_says_that_it_runs_without_its_code() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.randn(4, 16)
    result = quantfx.quantize(
        model, (x,), calibration=[x], dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    with torch._dynamo.config.patch(recompile_limit=1):
        run = result.compile()
        inputs = [torch.randn(rows, 16) for rows in (5, 6, 7)]
        with warned("recompile-limit") as caught:
            outputs = [run(y) for y in inputs]
    for y, output in zip(inputs, outputs, strict=True):
        torch.testing.assert_close(output, result.module(y))
    assert len([each for each in caught if each.category is QuantfxWarning]) == 1

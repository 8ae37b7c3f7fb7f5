"""Dynamo's limit of graphs for one function: what runs in float behind it is said, once, and why."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.patterns.errors import QuantfxWarning
from tests.dynamo.models import WIDTH, Mlp, batches, compiled
from tests.refusals import refused, warned

LIMIT = 3


class Counter(nn.Module):
    """Counts its calls in a plain attribute, which Dynamo takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 8)
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return self.linear(x)


@pytest.fixture(autouse=True)
def few_graphs() -> Any:
    with torch._dynamo.config.patch(recompile_limit=LIMIT):
        yield


def kinds(run: Callable[..., Tensor], model: Counter, calls: int) -> str:
    """Return what each call computes in: ``f`` is float, ``i`` is int8."""
    x = batches(1)[0]
    with torch.no_grad():
        expected = model.linear(x)
        return "".join("f" if torch.equal(run(x), expected) else "i" for _ in range(calls))


def ours(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(each.message) for each in caught if each.category is QuantfxWarning]


def auto(model: nn.Module, count: int = 2, **options: Any) -> Any:
    return quantfx.auto(model, backend="native", calibration_batches=count, **options)


def test_auto_says_it_when_it_happens_and_in_state_and_report() -> None:
    model = Counter().eval()
    quantized = auto(model)
    assert kinds(quantized, model, 2 + LIMIT) == "ff" + LIMIT * "i"
    assert quantized.state == "int8"
    with pytest.warns(QuantfxWarning) as caught:
        assert kinds(quantized, model, 4) == "ffff"
    (message,) = ours(list(caught))
    for part in (
        "forward (",
        f"recompile_limit ({LIMIT})",
        "in float",
        f"in {LIMIT} of {LIMIT} graphs: self.n == ",
        "count outside of forward",
    ):
        assert part in message
    assert quantized.state == "int8 and float"
    last = quantized.report.graphs[-1]
    assert (last.phase, last.reason) == ("float", message)
    assert message in str(quantized.report)
    model.n = 3  # which a graph was made for
    assert kinds(quantized, model, 2) == "ii"


def test_a_limit_while_calls_are_observed() -> None:
    model = Counter().eval()
    quantized = auto(model, 2 * LIMIT)
    with warned("recompile-limit") as caught:
        assert kinds(quantized, model, 3 * LIMIT) == 3 * LIMIT * "f"
    assert len(ours(list(caught))) == 1
    assert (quantized.state, quantized.observed) == ("observing", LIMIT)
    assert quantized.report.graphs[-1].phase == "float"
    quantized.convert()
    assert quantized.state == "int8"
    assert kinds(quantized, model, 2) == "ii"


def test_convert_and_reset_start_anew_and_are_told_of_anew() -> None:
    model = Counter().eval()
    quantized = auto(model)
    with warned("recompile-limit"):
        kinds(quantized, model, 2 + LIMIT + 1)
    for again in (torch.compiler.reset, quantized.convert):
        again()
        assert kinds(quantized, model, LIMIT) == LIMIT * "i"
        with warned("recompile-limit"):
            assert kinds(quantized, model, 1) == "f"
        assert quantized.state == "int8 and float"


def test_instances_of_auto_have_limits_of_their_own() -> None:
    first, second = Counter().eval(), Counter().eval()
    with warned("recompile-limit"):
        kinds(auto(first), first, 2 + LIMIT + 1)
    quantized = auto(second)
    assert kinds(quantized, second, 2 + LIMIT) == "ff" + LIMIT * "i"
    assert quantized.state == "int8"


def test_a_backend_says_it_once_and_other_instances_stay_int8() -> None:
    first, second = Counter().eval(), Counter().eval()
    fast, state = compiled(first)
    with warned("recompile-limit", says=r"self\.n") as caught:
        assert kinds(fast, first, LIMIT + 4) == "ffiffff"
    assert len(ours(list(caught))) == 1
    assert state.is_partly_float
    # Those of the calls that were observed came once, and are int8 should they come again.
    phases = [each.phase for each in state.report.graphs]
    assert phases == ["observing"] * 2 + ["int8"] * (LIMIT - 2) + ["float"]
    first.n = LIMIT - 1
    assert kinds(fast, first, 1) == "i"
    # Dynamo by itself would leave the function of every instance to Python.
    other, others = compiled(second)
    assert kinds(other, second, LIMIT) == "ffi"
    assert not others.is_partly_float
    with warned("recompile-limit", says=f"in {LIMIT} of {LIMIT} graphs") as caught:
        assert kinds(other, second, 3) == "fff"
    assert len(ours(list(caught))) == 1


def test_a_backend_without_a_state_says_it_as_well() -> None:
    model = Counter().eval()
    fast = torch.compile(model, backend="quantfx_native", options={"calibration_batches": 1})
    with warned("recompile-limit") as caught:
        assert kinds(fast, model, LIMIT + 3) == "fiifff"
    assert len(ours(list(caught))) == 1


def test_the_limit_of_all_instances_together() -> None:
    with torch._dynamo.config.patch(accumulated_recompile_limit=4):
        models = [Mlp().eval() for _ in range(6)]
        x = batches(1)[0]
        for index, model in enumerate(models):
            fast, state = compiled(model, count=1)
            if index < 4:
                fast(x)
                assert not torch.equal(fast(x), model(x))
                continue
            with warned(
                "recompile-limit",
                says=r"accumulated_recompile_limit \(4\)",
            ):
                fast(x)
            assert state.is_partly_float
            assert [each.phase for each in state.report.graphs] == ["float"]
            with warnings.catch_warnings():
                warnings.simplefilter("error", QuantfxWarning)
                assert torch.equal(fast(x), model(x))


def test_models_of_torch_nn_share_a_function_of_dynamos() -> None:
    states: list[quantfx.CompileState] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(LIMIT + 2):
            fast, state = compiled(nn.Sequential(nn.Linear(WIDTH, 8)).eval(), count=1)
            fast(batches(1)[0])
            fast(batches(1)[0])
            states.append(state)
    floats = [state.is_partly_float for state in states]
    assert len(ours(caught)) == sum(floats)
    assert [state.report.planned for state in states] == [0 if each else 1 for each in floats]
    assert all("of Sequential has reached" in each for each in ours(caught))


def test_sizes_are_named_with_their_way_out() -> None:
    model = Mlp().eval()
    quantized = auto(model, 1, dynamic=False)
    quantized(batches(1)[0])
    for rows in range(2, 2 + LIMIT):
        quantized(batches(1, rows)[0])
    with warned("recompile-limit", says="'x'"):
        quantized(batches(1, 20)[0])
    assert quantized.state == "int8 and float"


@pytest.mark.parametrize("limit", [1, pytest.param(LIMIT, marks=pytest.mark.sweep)])
def test_graphs_of_qdq_models(limit: int) -> None:
    x = batches(1)[0]
    quantized = quantfx.quantize(
        Mlp().eval(), (x,), calibration=[x], dynamic_shapes=({0: torch.export.Dim("rows")},)
    ).quantized
    state = quantfx.CompileState()
    options: Any = {"state": state}
    fast: Any = torch.compile(quantized, backend="quantfx_lower", dynamic=False, options=options)
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=limit):
        for rows in range(2, 2 + limit):
            fast(batches(1, rows)[0])
        with warned("recompile-limit"):
            fast(batches(1, 20)[0])
    assert [each.phase for each in state.report.graphs] == ["int8"] * limit + ["float"]


@pytest.mark.parametrize("by_setting", [True, False])
def test_where_errors_are_asked_for_it_is_an_error_of_ours(by_setting: bool) -> None:
    model = Counter().eval()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=by_setting):
        quantized = auto(model, fullgraph=not by_setting)
        kinds(quantized, model, 2 + LIMIT)
        for _ in range(2):
            with torch.no_grad(), refused("recompile-limit", says=r"self\.n =="):
                quantized(batches(1)[0])
        assert quantized.state == "int8"
        torch.compiler.reset()
        fast: Any = torch.compile(
            model,
            backend="quantfx_native",
            options={"calibration_batches": 1},
            fullgraph=not by_setting,
        )
        kinds(fast, model, LIMIT)
        with torch.no_grad(), refused("recompile-limit", says=r"self\.n =="):
            fast(batches(1)[0])


def test_a_part_behind_a_graph_break() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.second = nn.Linear(WIDTH, 8)
            self.n = 0

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            torch._dynamo.graph_break()
            self.n += 1
            return self.second(x)

    quantized = auto(Parts().eval())
    x = batches(1)[0]
    with torch.no_grad(), pytest.warns(QuantfxWarning) as caught:
        _ = [quantized(x) for _ in range(2 + LIMIT + 2)]
    (message,) = ours(list(caught))
    assert message.startswith("behind a graph break in forward (")
    assert quantized.state == "int8 and float"
    assert [each.phase for each in quantized.report.graphs] == ["int8"] * (1 + LIMIT) + ["float"]


def test_threads_hear_of_it_once() -> None:
    model = Counter().eval()
    quantized = auto(model)
    kinds(quantized, model, 2 + LIMIT)
    x = batches(1)[0]
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        # Settings are of a thread.
        with torch._dynamo.config.patch(recompile_limit=LIMIT), torch.no_grad():
            for _ in range(5):
                quantized(x)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(ours(caught)) == 1
    assert quantized.state == "int8 and float"


def test_other_peoples_compiles_are_none_of_ours() -> None:
    model = Counter().eval()
    compiled(Mlp().eval())[0](batches(1)[0])
    fast: Any = torch.compile(model, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        assert kinds(fast, model, LIMIT + 2) == (LIMIT + 2) * "f"


def test_no_model_is_kept_alive_by_what_was_told() -> None:
    import gc
    import weakref

    model: Any = Counter().eval()
    fast: Any = torch.compile(model, backend="quantfx_native", options={"calibration_batches": 1})
    with warned("recompile-limit"):
        kinds(fast, model, LIMIT + 1)
    gone = weakref.ref(model)
    del model, fast
    gc.collect()
    assert gone() is None

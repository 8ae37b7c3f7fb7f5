"""Online calibration: float results while calls are observed, int8 behind, nothing lost between."""

from __future__ import annotations

import copy
import gc
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from quantfx.dynamo.compile_state import CompileState
from quantfx.passes.errors import CalibrationError, ContractError, ModeError, StaleWeightsError
from tests.dynamo.models import (
    WIDTH,
    Block,
    Branch,
    Convolutions,
    Counting,
    Mlp,
    Tied,
    Twice,
    batches,
    close,
    compiled,
    phases,
)
from tests.refusals import refused, warned


@pytest.mark.parametrize("make", [Mlp, Branch, Convolutions, Twice, Tied])
def test_observed_calls_return_what_the_model_does_to_the_bit(make: type[nn.Module]) -> None:
    model = make().eval()
    shape = (3, 8, 8) if make is Convolutions else (WIDTH,)
    data = [torch.randn(4, *shape) for _ in range(4)]
    fast, state = compiled(model, count=4)
    assert all(torch.equal(fast(x), model(x)) for x in data)
    assert {phase for phase, _ in phases(state)} == {"observing"}


def test_the_swap_compiles_no_graph_of_dynamos() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    counters.clear()
    for x in batches(5):
        fast(x)
    assert phases(state) == [("int8", 2)]
    assert counters["stats"]["unique_graphs"] == 1
    assert not torch.equal(fast(x), model(x))
    assert close(fast(x), model(x))


def test_calls_after_a_branch_on_data_are_int8_in_every_part() -> None:
    model = Branch().eval()
    fast, state = compiled(model)
    data = [x + sign for x in batches(4) for sign in (1, -1)]
    for x in data:
        fast(x)
    assert phases(state) == [("int8", 2)] * 3
    assert all(close(fast(x), model(x)) for x in data)
    report = state.report
    assert report.planned == 3
    assert "behind a graph break in forward" in str(report)


def test_two_instances_have_their_own_weights() -> None:
    models = [Mlp().eval(), Mlp().eval()]
    pairs = [(model, *compiled(model)) for model in models]
    for x in batches(4):
        for _, fast, _ in pairs:
            fast(x)
    for model, fast, state in pairs:
        assert phases(state) == [("int8", 2)]
        assert close(fast(x), model(x))


def test_two_instances_through_one_compiled_function() -> None:
    models = [Mlp().eval(), Mlp().eval()]

    def call(model: nn.Module, x: torch.Tensor) -> Any:
        return model(x)

    fast, state = compiled(call, count=1)
    x = batches(1)[0]
    for _ in range(2):
        for model in models:
            assert close(fast(model, x), model(x))
    assert phases(state) == [("int8", 1)] * 2


def test_a_replaced_parameter_is_observed_anew() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    data = batches(4)
    for x in data:
        fast(x)
    model.first.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.1)
    assert [torch.equal(fast(x), model(x)) for x in data] == [True, True, False, False]
    assert all(close(fast(x), model(x)) for x in data[:2])
    assert phases(state) == [("int8", 2)] * 2


def test_loading_weights_behind_the_conversion_is_an_error_that_names_them() -> None:
    model, other = Mlp().eval(), Mlp().eval()
    fast, _ = compiled(model)
    for x in batches(3):
        fast(x)
    model.load_state_dict(other.state_dict())
    with refused("stale-weights", StaleWeightsError, site="first.weight", says="3 more"):
        fast(x)
    again, _ = compiled(model)
    torch.compiler.reset()
    for x in batches(3):
        again(x)
    assert close(again(x), model(x))


def test_storage_given_by_data_is_seen_too() -> None:
    model = Mlp().eval()
    fast, _ = compiled(model)
    for x in batches(3):
        fast(x)
    model.first.weight.data = torch.randn(WIDTH, WIDTH)
    with refused("stale-weights", StaleWeightsError, site="first.weight"):
        fast(x)


def test_the_check_of_weights_can_be_left_out() -> None:
    model = Mlp().eval()
    fast, _ = compiled(model, check_weights=False)
    for x in batches(3):
        before = fast(x)
    with torch.no_grad():
        model.first.weight.mul_(2)
    assert torch.equal(fast(x), before)


def test_loading_weights_while_observing_starts_anew() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    data = batches(4)
    fast(data[0] * 100)
    model.load_state_dict(Mlp().state_dict())
    with warned("stale-weights", says=r"1 call\(s\)"):
        assert torch.equal(fast(data[0]), model(data[0]))
    assert phases(state) == [("observing", 1)]
    assert [torch.equal(fast(x), model(x)) for x in data] == [True, False, False, False]
    assert close(fast(data[0]), model(data[0]))


@pytest.mark.parametrize("norm", [False, True])
def test_training_is_float_and_differentiable(norm: bool) -> None:
    model = Mlp(norm).eval()
    fast, state = compiled(model)
    for x in batches(3):
        fast(x)
    model.train()
    twin = copy.deepcopy(model)
    with warned("stays-float"):
        fast(x).sum().backward()
    twin(x).sum().backward()
    for parameter, same in zip(model.parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None
        assert same.grad is not None
        assert torch.equal(parameter.grad, same.grad)
    model.eval()
    assert phases(state) == [("int8", 2), ("float", 0)]
    if norm:  # its statistics have moved
        with refused(
            "stale-weights", StaleWeightsError, site="the running statistics of a BatchNorm1d"
        ):
            fast(x)
    else:
        assert close(fast(x), model(x))


def test_toggling_the_mode_makes_no_further_graphs() -> None:
    model = Mlp().eval()
    fast, _ = compiled(model, count=1)
    x = batches(1)[0]
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            model.eval()
            fast(x)
            model.train()
            assert torch.equal(fast(x), model(x))
    assert counters["stats"]["unique_graphs"] == 2


def test_an_input_that_asks_for_its_gradient_is_refused() -> None:
    fast, _ = compiled(Mlp().eval())
    for x in batches(3):
        fast(x)
    with refused("no-gradients", ModeError):
        fast(x.clone().requires_grad_())
    with torch.no_grad():
        fast(x.clone().requires_grad_())


def test_float_parts_in_front_of_a_graph_break_ask_for_nothing() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(WIDTH)
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.norm(x)
            torch._dynamo.graph_break()
            return self.linear(x)

    model, x = Parts().eval(), batches(1)[0]
    fast, state = compiled(model, "quantfx_x86")
    for _ in range(3):  # with gradients on, which the parameters of the norm have
        result = fast(x)
    assert close(result, model(x))
    assert phases(state) == [("float", 0), ("int8", 2)]


def test_a_batch_with_nan_is_refused_by_name_and_not_observed() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    data = batches(3)
    with refused("not-finite", CalibrationError, site="x", says="1 of"):
        fast(data[0] * float("nan"))
    fast(data[0])
    with refused("not-finite", CalibrationError, site="x"):
        fast(data[0] * float("inf"))
    assert phases(state) == [("observing", 1)]
    fast(data[1])
    assert close(fast(data[2]), model(data[2]))


def test_a_tensor_that_overflows_inside_leaves_no_trace() -> None:
    class Divide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.second = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x) / x.abs().max().floor())

    model = Divide().eval()
    data = [x + 1 for x in batches(3)]
    results = []
    for bad in ([], [data[0] / 100]):
        torch.compiler.reset()
        fast, state = compiled(model)
        fast(data[0])
        for x in bad:  # first sees small values, second infinite ones
            with refused("not-finite", CalibrationError, site="second (linear_1).input"):
                fast(x)
        fast(data[1])
        results.append(fast(data[2]))
        assert phases(state) == [("int8", 2)]
    assert torch.equal(*results)


def test_a_wrong_shape_leaves_the_state_usable() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    data = batches(3)
    fast(data[0])
    with pytest.raises(RuntimeError, match="same reduction dim|cannot be multiplied"):
        fast(torch.randn(8, WIDTH - 1))
    fast(data[1])
    assert close(fast(data[2]), model(data[2]))
    assert phases(state) == [("int8", 2)]


def test_a_failure_to_lower_is_raised_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    data = batches(3)
    for x in data[:2]:
        fast(x)

    def fail(*_: object, **__: object) -> None:
        raise ContractError("no compiler", rule="no-kernel")

    with monkeypatch.context() as patch:
        patch.setattr("quantfx.dynamo.online_graph.quantize_frame", fail)
        with refused("no-kernel", ContractError):
            fast(data[2])
    assert phases(state) == [("observing", 2)]
    assert close(fast(data[2]), model(data[2]))
    assert phases(state) == [("int8", 2)]


def test_threads_observe_each_call_once_and_lower_once() -> None:
    model = Mlp().eval()
    fast, state = compiled(model, count=40)
    data = batches(4)
    fast(data[0])  # Dynamo itself compiles once per thread that comes first
    results: list[tuple[bool, bool]] = []

    def work() -> None:
        for index in range(20):
            x = data[index % 4]
            result = fast(x)
            results.append((torch.equal(result, model(x)), close(result, model(x))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert sum(exact for exact, _ in results) == 39
    assert all(right for _, right in results)
    assert phases(state) == [("int8", 40)]


@pytest.mark.parametrize("make", [Twice, Tied])
def test_a_module_used_twice_has_two_ranges(make: type[nn.Module]) -> None:
    model = make().eval()
    fast, state = compiled(model, "quantfx_x86")
    for x in batches(3):
        fast(x)
    assert close(fast(x), model(x))
    report = state.records[0].report
    assert report is not None
    (row,) = [row for row in report.rows if row.kind == "linear"]
    assert row.compiled == 2


def test_buffers_that_the_model_writes_move_as_in_float() -> None:
    model = Counting().eval()
    twin = copy.deepcopy(model)
    fast, state = compiled(model, "quantfx_x86")
    for x in batches(5):
        result, view = fast(x)
        expected, _ = twin(x)
        assert close(result, expected)
        assert view.data_ptr() == x.data_ptr()
    assert model.calls == twin.calls == 5
    assert torch.equal(model.mean, twin.mean)
    assert phases(state) == [("int8", 2)]


def test_twelve_equal_layers_compiled_one_by_one_are_all_int8() -> None:
    layers = nn.Sequential(*[Block() for _ in range(12)]).eval()
    state = CompileState()
    for layer in layers:
        layer.compile(backend="quantfx_native", options={"calibration_batches": 1, "state": state})
    x = batches(1)[0]
    expected = x
    for layer in layers:
        expected = layer.forward(expected)
    assert torch.equal(layers(x), expected)
    assert close(layers(x), expected)
    assert phases(state) == [("int8", 1)] * 12  # Dynamo's own limit is 8 graphs for a function


def test_graphs_of_other_shapes_share_what_was_observed() -> None:
    model = Mlp().eval()
    fast, state = compiled(model, count=3, dynamic=False)
    for rows in (2, 3, 4):
        x = batches(1, rows)[0]
        assert torch.equal(fast(x), model(x))
    for rows in (2, 3, 4, 5):
        x = batches(1, rows)[0]
        assert close(fast(x), model(x))
    assert [phase for phase, _ in phases(state)] == ["int8"] * 4
    assert state.calibrations[0].count == 3


class Specialized(nn.Module):
    """Dynamo makes a graph for each value of what comes beside the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: dict[str, torch.Tensor], key: str, scale: float, flag: bool) -> Any:
        y = torch.relu(x[key] / scale)
        return self.linear(y.exp() if flag else y)


OTHERS = [("b", 1.0, False), ("a", 0.01, False), ("a", 1.0, True)]


@pytest.mark.parametrize(
    ("backend", "other"),
    [
        *(("quantfx_native", other) for other in OTHERS),
        # What shares ranges is told before a backend is asked.
        *(pytest.param("quantfx_x86", other, marks=pytest.mark.sweep) for other in OTHERS),
    ],
)
def test_graphs_that_compute_something_else_share_no_ranges(
    backend: str, other: tuple[str, float, bool]
) -> None:
    model = Specialized().eval()
    data = batches(1)[0]
    x = {"a": data, "b": data * 100}
    fast, state = compiled(model, backend, 1)
    for arguments in (("a", 1.0, False), other):
        assert torch.equal(fast(x, *arguments), model(x, *arguments))
    for arguments in (("a", 1.0, False), other):
        assert close(fast(x, *arguments), model(x, *arguments))
    assert phases(state) == [("int8", 1)] * 2


@pytest.mark.parametrize("change", ["data", "to"])
def test_memory_that_is_replaced_while_observing_is_an_error(change: str) -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    x = batches(1)[0]
    fast(x)
    if change == "data":
        model.first.weight.data = torch.randn(WIDTH, WIDTH)
    else:
        model.to(torch.bfloat16).to(torch.float32)
    with refused("moved-weights", StaleWeightsError, site="first.weight"):
        fast(x)
    torch.compiler.reset()
    again, _ = compiled(model, state=state)
    for _ in range(3):
        result = again(x)
    assert close(result, model(x))


def test_kernels_that_return_float32_are_refused_under_autocast() -> None:
    fast, _ = compiled(Mlp().eval())
    with (
        torch.autocast("cpu", torch.bfloat16),
        refused("autocast-dtype", BackendCompilerFailed, site="native"),
    ):
        fast(batches(1)[0])


def test_modes_without_ranges_need_no_calls() -> None:
    model = Mlp().eval()
    fast, state = compiled(model, config="dynamic")
    x = batches(1)[0]
    assert close(fast(x), model(x))
    assert not torch.equal(fast(x), model(x))
    assert phases(state) == [("int8", 0)]


def test_compiled_code_keeps_no_model_alive() -> None:
    model = Mlp().eval()
    fast, state = compiled(model)
    for x in batches(3):
        fast(x)
    weight = weakref.ref(model.first.weight)
    del model, fast
    gc.collect()
    assert weight() is None
    assert phases(state) == [("int8", 2)]


def test_without_a_state_nothing_is_remembered_beyond_the_compiled_code() -> None:
    model = Mlp().eval()
    options: Any = {"calibration_batches": 2}
    data = batches(3)
    for _ in range(2):
        fast = torch.compile(model, backend="quantfx_native", options=options)
        assert [torch.equal(fast(x), model(x)) for x in data] == [True, True, False]
        torch.compiler.reset()
        gc.collect()


def test_the_models_own_random_numbers_stay_in_step() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x + torch.rand_like(x))

    model = Noisy().eval()
    fast, _ = compiled(model)
    x = batches(1)[0]
    torch.manual_seed(3)
    expected = model(x), model(x)
    torch.manual_seed(3)
    assert torch.equal(fast(x), expected[0])
    assert torch.equal(fast(x), expected[1])


def test_the_log_says_what_became_int8(caplog: pytest.LogCaptureFixture) -> None:
    fast, _ = compiled(Mlp().eval())
    with caplog.at_level("INFO", logger="quantfx"):
        for x in batches(3):
            fast(x)
    assert f"({Path('tests/dynamo/models.py')}" in caplog.text.replace(str(Path.cwd()) + "/", "")
    assert "is int8: linear 2/2" in caplog.text

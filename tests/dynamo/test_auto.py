"""quantfx.auto: two phases of one model, switched by count or by hand."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import quantfx
from quantfx.passes.errors import (
    CalibrationError,
    ConfigError,
    ContractError,
    OptionError,
    StaleWeightsError,
)
from tests.dynamo.models import WIDTH, Branch, Convolutions, Mlp, batches, close, compiled
from tests.refusals import refused, warned


def auto(model: nn.Module, batches: int = 2, backend: str = "native", **options: Any) -> Any:
    return quantfx.auto(model, backend=backend, calibration_batches=batches, **options)


def test_it_observes_then_computes_in_int8() -> None:
    model = Mlp().eval()
    quantized = auto(model)
    data = batches(4)
    assert str(quantized.report) == "no graph yet: call the model"
    for x in data[:2]:
        assert quantized.state == "observing"
        assert torch.equal(quantized(x), model(x))
    assert quantized.observed == 2
    result = quantized(data[2])
    assert quantized.state == "int8"
    assert close(result, model(data[2]))
    assert not torch.equal(result, model(data[2]))
    report = quantized.report
    assert [graph.phase for graph in report.graphs] == ["int8"]
    assert report.planned == 2
    assert report.to_dict()["graphs"][0]["report"]["rows"][0]["lowered"] == 2
    assert "linear" in str(report)


def test_models_that_export_rejects_are_int8_in_every_part() -> None:
    model = Branch().eval()
    with pytest.raises(quantfx.passes.errors.CaptureError):
        quantfx.capture(model, (batches(1)[0],))
    quantized = auto(model, 4)
    data = [x + sign for x in batches(2) for sign in (1, -1)]
    assert all(torch.equal(quantized(x), model(x)) for x in data)
    assert all(close(quantized(x), model(x)) for x in data)
    assert [graph.phase for graph in quantized.report.graphs] == ["int8"] * 3
    assert [graph.observed for graph in quantized.report.graphs] == [4, 2, 2]


def test_a_path_that_no_call_took_is_an_error_or_stays_float() -> None:
    model = Branch().eval()
    x = batches(1)[0]
    for strict in (True, False):
        quantized = auto(model, 2, strict=strict)
        for _ in range(2):
            quantized(x + 1)
        assert close(quantized(x + 1), model(x + 1))
        if strict:
            with refused("never-run", CalibrationError):
                quantized(x - 1)
        else:
            with warned("stays-float"):
                assert quantized(x - 1).isfinite().all()
            phases = [graph.phase for graph in quantized.report.graphs]
            assert phases == ["int8", "int8", "float"]


def test_convert_by_hand_and_again_after_a_change_of_weights() -> None:
    model = Mlp().eval()
    quantized = auto(model, 100)
    with refused("never-run", CalibrationError):
        quantized.convert()
    data = batches(3)
    for x in data:
        quantized(x)
    assert quantized.convert() is quantized
    assert close(quantized(x), model(x))
    with torch.no_grad():
        model.second.weight.mul_(1.01)
    with refused("stale-weights", StaleWeightsError, site="second.weight"):
        quantized(x)
    quantized.convert()
    assert close(quantized(x), model(x))
    assert [graph.phase for graph in quantized.report.graphs] == ["int8"]


def test_weights_that_change_before_the_switch_are_observed_anew() -> None:
    model = Mlp().eval()
    quantized = auto(model)
    data = batches(3)
    for x in data[:2]:
        quantized(x)
    model.load_state_dict(Mlp().state_dict())
    with warned("stale-weights"):
        assert torch.equal(quantized(data[2]), model(data[2]))
    assert quantized.state == "observing"
    quantized(data[0])
    assert close(quantized(data[0]), model(data[0]))


def test_modes_without_ranges_switch_after_the_first_call() -> None:
    model = Mlp().eval()
    quantized = auto(model, 8, config="dynamic")
    x = batches(1)[0]
    for _ in range(2):
        assert close(quantized(x), model(x))
    assert quantized.state == "int8"
    assert close(auto(model, 0, config="dynamic")(x), model(x))


def test_a_model_in_training_mode_is_float_and_counts_no_calls() -> None:
    model = Mlp()
    quantized = auto(model)
    x = batches(1)[0]
    with warned("stays-float"):
        quantized(x).sum().backward()
    for _ in range(2):
        quantized(x)
    assert quantized.state == "observing"
    assert model.first.weight.grad is not None
    quantized.eval()
    assert not model.training
    for _ in range(3):
        quantized(x)
    assert quantized.state == "int8"


def test_a_rule_that_selects_nothing_in_any_graph_is_an_error() -> None:
    model = Branch().eval()
    data = [x + sign for x in batches(2) for sign in (1, -1)]
    # "negative" is in one graph of three: enough.
    config = quantfx.Config("static").module("negative", None)
    quantized = auto(model, 4, config=config)
    for x in (*data, data[0], data[1]):
        quantized(x)
    assert quantized.report.planned == 2
    quantized = auto(model, 4, config=quantfx.Config("static").module("negativ", None))
    for x in data:
        quantized(x)
    with refused("unused-rule", ConfigError, site="module='negativ'"):
        quantized(data[0])


def test_a_model_with_nothing_to_quantize_is_an_error_and_not_observed_for_ever() -> None:
    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x, 0)

    x = batches(1)[0]
    for make in (Nothing, lambda: nn.LSTM(WIDTH, 8)):
        for strict in (True, False):
            quantized = auto(make().eval(), 2, "x86", strict=strict)
            for _ in range(2):
                quantized(x)
            if strict:
                with refused("nothing-to-quantize", ContractError, says="2 call"):
                    quantized(x)
            else:
                with warned("nothing-to-quantize"):
                    quantized(x)
                quantized(x)


def test_errors_are_ours_and_not_dynamos() -> None:
    with refused("number-range", OptionError, site="calibration_batches", says="=-1"):
        auto(Mlp().eval(), -1)
    with refused("unknown-name", site="x68", fix="x86"):
        auto(Mlp().eval(), backend="x68")
    with refused("not-here", site="xpu"):
        auto(Mlp().eval(), backend="xpu")(batches(1)[0])
    quantized = auto(Mlp().eval())
    with refused("not-finite", CalibrationError, site="x"):
        quantized(batches(1)[0] * float("nan"))


def test_the_model_is_its_only_submodule() -> None:
    model = Mlp().eval()
    quantized = auto(model)
    quantized(batches(1)[0])
    assert list(quantized.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    assert not quantized.training


def test_it_refuses_to_be_copied_and_says_what_can_be() -> None:
    quantized = auto(Mlp().eval())
    for copied in (copy.deepcopy, pickle.dumps):
        with refused("not-picklable"):
            copied(quantized)
    assert copy.deepcopy(quantized.model).state_dict().keys() == quantized.model.state_dict().keys()


def test_keyword_arguments_and_several_inputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(
            self, x: torch.Tensor, *, scale: torch.Tensor | None = None
        ) -> dict[str, torch.Tensor]:
            y = self.linear(x)
            return {"y": y if scale is None else y * scale, "x": x}

    model = Pair().eval()
    quantized = auto(model)
    x, scale = batches(1)[0], torch.rand(WIDTH)
    for _ in range(3):
        assert close(quantized(x, scale=scale)["y"], model(x, scale=scale)["y"])
    assert quantized.state == "int8"


class OneConvolution(nn.Module):
    """The least that has an image of any batch, a convolution and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


# Free from the start is the second half of what None does; in CI tests/dynamo/test_explicit.py has it.
@pytest.mark.parametrize(
    ("make", "planned", "dynamic"),
    [
        (OneConvolution, 2, None),
        pytest.param(Convolutions, 4, None, marks=pytest.mark.sweep),
        pytest.param(Convolutions, 4, True, marks=pytest.mark.sweep),
    ],
)
def test_batches_of_one_to_twenty(
    make: type[nn.Module], planned: int, dynamic: bool | None
) -> None:
    model = make().eval()
    quantized = auto(model, 3, "x86", dynamic=dynamic)
    torch.manual_seed(1)
    for rows in (4, 8, 6, 1, 2, 20, *(range(1, 21) if dynamic else ())):
        x = torch.rand(rows, 3, 8, 8) * 2 - 1
        with torch.no_grad():
            assert close(quantized(x), model(x)), rows
    assert {graph.phase for graph in quantized.report.graphs} == {"int8"}
    report = quantized.report.graphs[-1].report
    assert report is not None
    assert report.planned == report.compiled == planned


def test_released_weights() -> None:
    model = Branch().eval()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    quantized = auto(model, 2, "x86")
    data = [x + sign for x in batches(1) for sign in (1, -1)]
    quantized(data[0])
    with refused("not-all-int8"):
        quantized.release_float_weights()
    quantized(data[1])
    with torch.no_grad():
        before = [quantized(x) for x in data]
        expected = sum(
            each.weight.numel() * 4 for each in (model.first, model.positive, model.negative)
        )
        assert quantized.release_float_weights() == expected
        assert all(torch.equal(quantized(x), y) for x, y in zip(data, before, strict=True))
        assert quantized.release_float_weights() == 0
        with pytest.raises(RuntimeError):
            model(data[0])
        with refused("released-weights"):
            quantized(torch.cat(data) + 1)


def test_weights_that_some_graph_reads_in_float_are_kept() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(64, WIDTH)
            self.linear = nn.Linear(WIDTH, WIDTH)
            self.head = nn.Linear(WIDTH, 64, bias=False)
            self.head.weight = self.table.weight

        def forward(self, index: torch.Tensor) -> torch.Tensor:
            rows = self.head.weight[index]
            return self.head(torch.relu(self.linear(rows + self.table(index))))

    model = Embedding().eval()
    quantized = auto(model, 1, "x86")
    index = torch.randint(0, 64, (4, 5))
    with torch.no_grad():
        for _ in range(2):
            result = quantized(index)
        assert quantized.release_float_weights() == model.linear.weight.numel() * 4
        assert torch.equal(quantized(index), result)
    assert model.table.weight.untyped_storage().nbytes()


def test_weights_of_graphs_that_stay_float_are_kept_and_dead_ones_forgotten() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.second = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor, region: bool) -> torch.Tensor:
            if region:  # which is not captured
                with torch.autocast("cpu", torch.bfloat16):
                    return self.first(x)
            return self.second(self.first(x))

    state = quantfx.CompileState()
    x = batches(1)[0]
    gone: Any = nn.Linear(WIDTH, 4)  # in training mode
    compiled(gone, state=state)[0](x)
    model = Regions().eval()
    fast, _ = compiled(model, state=state, strict=False)
    del gone
    gc.collect()
    with torch.no_grad():
        region = fast(x, True)
        for _ in range(3):
            result = fast(x, False)
        assert state.release_float_weights() == WIDTH * WIDTH * 4  # second's; biases are read
        assert torch.equal(fast(x, True), region)
        assert torch.equal(fast(x, False), result)


class Remembers(nn.Module):
    """State in a plain attribute, which a captured graph cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.state = torch.zeros(8, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = torch.tanh(self.linear(x) + self.state)
        return self.state


def test_state_that_a_graph_cannot_follow_is_followed_as_its_refusal_says() -> None:
    model, data = Remembers().eval(), batches(5)
    with refused("plain-state", site="self.state", fix="quantfx.auto(model)"):
        quantfx.quantize(model, data[0], calibration=data)
    reference = copy.deepcopy(model)
    quantized = quantfx.auto(model, calibration_batches=2)
    for x in data:
        assert close(quantized(x), reference(x))
    assert quantized.state == "int8"


def test_infinity_is_refused_only_where_an_observer_sees_it() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.softmax(x + mask, -1))

    model, [x] = Masked().eval(), batches(1)
    mask = torch.zeros(WIDTH)
    mask[WIDTH // 2 :] = float("-inf")
    quantized = quantfx.auto(model, calibration_batches=2)
    quantized(x, mask)
    with refused("not-finite", CalibrationError, site="mask", says="2 of"):
        quantized(x, torch.full((WIDTH,), float("-inf")))
    quantized(x, mask)
    assert close(quantized(x, mask), model(x, mask))
    assert quantized.state == "int8"

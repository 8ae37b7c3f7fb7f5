from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver
from torch.export import Dim

import quantfx
from quantfx.passes.errors import CaptureError, InputError
from quantfx.tools.models.seeded import seeded
from tests.passes.model.test_trains import Standardized
from tests.refusals import refused
from tests.unchecked import quantize

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval())


def images() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.ConvTranspose2d(4, 4, 3),
            nn.Flatten(),
            nn.Linear(4 * 25, 4),
        ).eval()
    )


def lowered(result: quantfx.Result) -> dict[str, int | None]:
    return {row.kind: row.lowered for row in result.report.rows}


def is_close(result: quantfx.Result, model: Callable[..., Any], *inputs: Any) -> bool:
    with torch.no_grad():
        expected, given = model(*inputs), result.module(*inputs)
    return bool((given - expected).abs().max() < 0.05 * expected.abs().max())


def test_a_program_is_quantized_with_the_examples_and_free_sizes_it_was_exported_with() -> None:
    model = network()
    program = torch.export.export(model, (X,), dynamic_shapes=({0: Dim("rows", max=64)},))
    result = quantfx.quantize(program, calibration=[X])
    assert lowered(result) == {"linear": 2}
    assert is_close(result, model, X.repeat(3, 1)[:7])


def test_a_program_on_file_likewise(tmp_path: Path) -> None:
    model = network()
    torch.export.save(torch.export.export(model, (X,)), tmp_path / "model.pt2")
    result = quantize(tmp_path / "model.pt2", calibration=[X])
    assert lowered(result) == {"linear": 2}
    assert is_close(result, model, X)
    assert lowered(quantize(str(tmp_path / "model.pt2"), (X,), calibration=[X])) == {"linear": 2}


@pytest.mark.parametrize(
    ("file", "rule"), [("model.pt", "not-a-model"), ("missing.pt2", "unreadable-file")]
)
def test_other_files_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, rule: str
) -> None:
    with refused(rule, CaptureError, site=file):
        quantfx.quantize(tmp_path / file, (X,))
    assert not caplog.records  # of torch, which logs a traceback of what is missing


@pytest.mark.parametrize("make", [network, images])
def test_a_program_of_core_operators_has_its_layers(make: Callable[[], nn.Module]) -> None:
    model, x = make(), X if make is network else IMAGE
    program = torch.export.export(model, (x,)).run_decompositions()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="erase_node")  # which tells of an edit made twice
        result = quantize(program, (x,), calibration=[x])
    assert lowered(result) == lowered(quantize(model, (x,), calibration=[x]))
    assert is_close(result, model, x)


def test_a_graph_that_was_exported_is_quantized_whatever_mode_it_names() -> None:
    model = network()
    exported = torch.export.export(model, (X,)).module()
    assert exported.training
    assert lowered(quantize(exported, (X,), calibration=[X])) == {"linear": 2}
    traced = torch.fx.symbolic_trace(model)
    assert lowered(quantize(traced, (X,), calibration=[X])) == {"linear": 2}
    captured = quantfx.capture(model, (X,))
    assert lowered(quantize(captured, (X,), calibration=[X])) == {"linear": 2}


def test_a_graph_that_was_exported_in_training_mode_is_refused() -> None:
    program = torch.export.export(images().train(), (IMAGE,))
    with refused("captured-mode", CaptureError, site="batch_norm", fix="model.eval"):
        quantfx.quantize(program, (IMAGE,))
    with refused("captured-mode", CaptureError):
        quantfx.prepare_qat(torch.export.export(network(), (X,)), (X,))


def test_a_program_that_standardizes_by_a_batch_norm_is_no_training() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(Standardized(3, 4, 3), norm, nn.ReLU()).eval()
    program = torch.export.export(model, (IMAGE,))
    result = quantize(program, (IMAGE,), calibration=[IMAGE])
    assert lowered(result) == {"conv2d": 1}
    assert is_close(result, model, IMAGE)


def test_a_function_of_tensors_is_quantized() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def function(x: Tensor, scale: float = 1.0) -> Tensor:
        return F.linear(x, weight).relu() * scale

    result = quantfx.quantize(function, (X,), calibration=[X])
    assert lowered(result) == {"linear": 1}
    assert is_close(result, function, X)
    with refused("input-names", InputError, site="x"):
        result.module(X, 2.0)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def encode(self, x: Tensor, power: int) -> Tensor:
        return self.body(x) ** power


def test_modules_that_a_function_refers_to_keep_their_names() -> None:
    body, owner = network(), Encoder().eval()

    def closure(x: Tensor) -> Tensor:
        return body(x) + 1

    config = quantfx.Config().module("body.0", None)
    result = quantize(closure, (X,), calibration=[X], config=config)
    assert lowered(result) == {"linear": 1}
    method = functools.partial(owner.encode, power=2)
    config = quantfx.Config().module("model.body.2", None)
    result = quantize(method, (X,), calibration=[X], config=config)
    assert lowered(result) == {"linear": 1}
    assert is_close(result, method, X)


def test_a_function_may_have_any_name_for_a_module() -> None:
    half, training = network(), nn.Linear(4, 4).eval()

    def function(x: Tensor) -> Tensor:
        y: Tensor = training(half(x))
        return y

    graph = quantfx.capture(function, (X,))
    assert {name.partition(".")[0] for name, _ in graph.named_parameters()} == {
        "half_",
        "training_",
    }
    with torch.no_grad():
        torch.testing.assert_close(graph(X), function(X))


def test_arguments_may_be_bound_to_a_module() -> None:
    class Powered(Encoder):
        def forward(self, x: Tensor, power: int) -> Tensor:
            return self.encode(x, power)

    bound = functools.partial(Powered().eval(), power=2)
    config = quantfx.Config().module("model.body.2", None)
    result = quantfx.quantize(bound, (X,), calibration=[X], config=config)
    assert lowered(result) == {"linear": 1}
    assert is_close(result, bound, X)


def test_a_function_of_a_module_in_training_mode_is_refused() -> None:
    body = network().train()
    with refused("captured-mode", CaptureError, site="body"):
        quantfx.quantize(lambda x: body(x), (X,))  # the closure is the point


def test_of_parallel_wrappers_the_model_inside_is_taken() -> None:
    model = network()
    assert lowered(quantize(nn.DataParallel(model), (X,), calibration=[X])) == {"linear": 2}


def test_what_is_inside_of_parallel_wrappers_is_looked_at() -> None:
    model = network()
    twice = nn.DataParallel(nn.DataParallel(model))
    assert lowered(quantize(twice, (X,), calibration=[X])) == {"linear": 2}
    scripted: nn.Module = torch.jit.script(model)
    with refused("not-a-model", CaptureError):
        quantfx.capture(nn.DataParallel(scripted), (X,))
    observed = nn.Sequential(MinMaxObserver(), model).eval()
    with refused("not-float", CaptureError, site="0", fix="torch.ao"):
        quantfx.capture(nn.DataParallel(observed), (X,))


def test_scripted_models_are_refused_with_the_lines_to_write() -> None:
    trace: Any = torch.jit.trace  # which has no types
    for made in (trace(network(), X), torch.jit.freeze(trace(network(), X))):
        with refused(
            "not-a-model", CaptureError, fix="model.load_state_dict(scripted.state_dict())"
        ):
            quantfx.quantize(made, (X,))


@pytest.mark.parametrize("model", [None, 3, {"state": X}])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with refused("not-a-model", CaptureError, says=f"a {type(model).__name__}, not"):
        quantfx.quantize(model, (X,))

"""Every call of every graph stands in exactly one list of the report."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop
from torch.export import Dim
from torch.fx import GraphModule, Node

import quantfx
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.quant.annotation import annotation_of
from tests import unchecked
from tests.export_cases import CASES as EXPORT_CASES
from tests.export_cases import Net
from tests.foreign_operators import Experts

ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def doubled(layer: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = Doubled.apply(layer(x))  # type: ignore[no-untyped-call]
    return result


def rounded(layer: nn.Module, x: Tensor) -> Tensor:
    """A model that simulates quantization itself."""
    ops = torch.ops.quantized_decomposed
    q = ops.quantize_per_tensor.default(x.tanh(), 0.01, 0, -128, 127, torch.int8)
    return layer(ops.dequantize_per_tensor.default(q, 0.01, 0, -128, 127, torch.int8))


def looped(layer: nn.Module, x: Tensor) -> Tensor:
    def more(count: Tensor, value: Tensor) -> Tensor:
        return count < 3

    def step(count: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return count + 1, value.sin()

    start = torch.tensor(0), layer(x)
    result: Tensor = while_loop(more, step, start)[1]  # type: ignore[no-untyped-call]
    return result


def autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x) @ x.T
    return y.float()


def spectrum(layer: nn.Module, x: Tensor) -> Tensor:
    spectra = torch.fft.rfft(x)
    return layer((spectra * spectra).abs()) + torch.cat([spectra, spectra], 1).abs().sum()


def halves(layer: nn.Module, x: Tensor) -> Tensor:
    first, second = torch.split(x, 2)
    return layer(first) + second.view(second.shape[0], -1).topk(8)[0]


Make = Callable[[], tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]]
MORE: dict[str, Make] = {
    "experts": lambda: (Experts(), (torch.randn(8, 64),), {}),
    "autograd function": lambda: (Net(doubled, nn.Linear(8, 8)), (ROWS,), {}),
    "q/dq of its own": lambda: (Net(rounded, nn.Linear(8, 8)), (ROWS,), {}),
    "loop": lambda: (Net(looped, nn.Linear(8, 8)), (ROWS,), {}),
    "autocast": lambda: (Net(autocast, nn.Linear(8, 8)), (ROWS,), {}),
    "complex": lambda: (Net(spectrum, nn.Linear(5, 8)), (ROWS,), {}),
    "several results": lambda: (Net(halves, nn.Linear(8, 8)), (ROWS,), {}),
    "free sizes": lambda: (
        Net(lambda layer, x: layer(x).view(x.shape[0] * 4, -1), nn.Linear(8, 8)),
        (ROWS,),
        {"dynamic_shapes": {"x": {0: Dim("rows")}}},
    ),
    "recurrent": lambda: (
        Net(lambda rnn, layer, x: layer(rnn(x)[0]), nn.LSTM(8, 8), nn.Linear(8, 8)),
        (ROWS,),
        {},
    ),
}


def quantize(model: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> quantfx.Result:
    return unchecked.quantize(model.eval(), inputs, strict=False, **options)


def calls(module: GraphModule) -> list[tuple[Site, Node]]:
    return [
        (Site(path, node.name), node)
        for path, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    ]


def name_of(node: Node) -> str:
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return f"higher_order.{node.target}"
    return str(node.target)


def check(result: quantfx.Result, captured: GraphModule) -> None:
    """Compare the report with what the graph holds, without asking how the report was made."""
    report, planned = result.report, set[Site]()
    skipped, others = [each.site for each in report.skipped], Counter[str]()
    assert len(skipped) == len(set(skipped))
    for site, node in calls(result.quantized):
        annotation = annotation_of(node)
        if annotation is not None:
            planned.add(Site(site.graph, annotation.match))
            assert str(site) not in skipped
        elif str(site) in skipped:
            skipped.remove(str(site))
        elif isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
            others[name_of(node)] += 1
        else:
            value = node.meta["val"]
            assert node.target is operator.getitem or isinstance(value, (int, torch.SymInt))
    assert planned == {each.site for each in report.sites}
    assert not skipped, "rows of operators that are not in the graph"
    # Those of the model were there before any pass put in its own.
    before = Counter(name_of(node) for _, node in calls(captured))
    for name in [name for name in others if name.startswith("quantized_decomposed.")]:
        others[name] = before[name]
    assert report.uncovered == dict(sorted((+others).items()))


@pytest.mark.parametrize("name", MORE)
def test_calls_that_are_not_of_torch_and_control_flow(name: str) -> None:
    model, inputs, options = MORE[name]()
    check(quantize(model, inputs, **options), unchecked.capture(model.eval(), inputs, **options))


@pytest.mark.parametrize("name", EXPORT_CASES)
@pytest.mark.parametrize("backend", ["x86", "native"])
def test_every_call_stands_in_one_list(name: str, backend: str) -> None:
    case = EXPORT_CASES[name]
    model, kwargs = case.make().eval(), dict(case.kwargs)
    result = unchecked.quantize(
        model, case.inputs, calibration=None, example_kwargs=kwargs, backend=backend, strict=False
    )
    check(result, captured(name))


@cache
def captured(name: str) -> GraphModule:
    case = EXPORT_CASES[name]
    return unchecked.capture(case.make().eval(), case.inputs, dict(case.kwargs))


def test_names_of_what_no_template_mentions() -> None:
    found: dict[str, dict[str, int]] = {}
    for name in ("experts", "autograd function", "q/dq of its own", "loop", "autocast"):
        model, inputs, options = MORE[name]()
        found[name] = dict(quantize(model, inputs, **options).report.uncovered)
    assert found["experts"] == {"quantfx_tests.experts.default": 1}
    assert found["q/dq of its own"] == {
        "quantized_decomposed.dequantize_per_tensor.default": 1,
        "quantized_decomposed.quantize_per_tensor.default": 1,
    }
    assert found["loop"]["higher_order.while_loop"] == 1
    assert found["loop"]["aten.sin.default"] == 1
    assert found["autocast"]["higher_order.wrap_with_autocast"] == 1
    assert not any("operator" in each for counts in found.values() for each in counts)

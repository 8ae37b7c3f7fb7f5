"""What a graph of Dynamo's becomes: the operators of export, weights by name, sizes from tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters
from torch.fx import GraphModule

import quantfx
from quantfx.dynamo.frame_graph import FrameGraph, capture_frame
from quantfx.dynamo.internals import current_frame
from quantfx.passes.graph.scopes import module_scope
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.dynamo.models import WIDTH, Convolutions, Counting, Mlp, batches
from tests.passes.model.test_trains import Standardized
from tests.refusals import refused


def captured(
    model: Callable[..., Any], *args: Any, dynamic: bool | None = None, **kwargs: Any
) -> list[FrameGraph]:
    found: list[FrameGraph] = []

    def backend(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        found.append(capture_frame(module, inputs, current_frame()))
        return module.forward

    torch.compile(model, backend=backend, dynamic=dynamic)(*args, **kwargs)
    return found


def operators(graph: GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def bert_case() -> tuple[nn.Module, tuple[Tensor, ...]]:
    config = BertConfig(layers=1, hidden=32, heads=2, vocabulary=100)
    return seeded(lambda: bert(config)), bert_inputs(config, batch=2)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "mlp": lambda: (Mlp(norm=True).eval(), (batches(1)[0],)),
    "convolutions": lambda: (Convolutions().eval(), (torch.rand(2, 3, 8, 8),)),
    "bert": bert_case,
}


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_that_of_export(name: str) -> None:
    model, inputs = CASES[name]()
    (frame,) = captured(model, *inputs)
    exported = unchecked.capture(model, inputs)
    assert operators(frame.graph) == operators(exported)
    scopes = [
        [module_scope(node) for node in graph.graph.nodes if node.op == "call_function"]
        for graph in (frame.graph, exported)
    ]
    # Dynamo says which layer an operator is of, and export which block, too.
    assert all(inner in ("", outer) for inner, outer in zip(*scopes, strict=True))
    result = frame.graph(*inputs)
    expected = [model(*inputs)]
    for one, other in zip(
        torch.utils._pytree.tree_leaves(result),
        torch.utils._pytree.tree_leaves(expected),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_weights_have_the_names_of_the_model_and_share_its_memory() -> None:
    model = Mlp(norm=True).eval()
    (frame,) = captured(model, batches(1)[0])
    names = {str(n.target) for n in frame.graph.graph.nodes if n.op == "get_attr"}
    assert names == {
        *(f"first.{name}" for name in ("weight", "bias")),
        *(f"second.{name}" for name in ("weight", "bias")),
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }
    own = dict(model.named_parameters())
    for name, parameter in frame.graph.named_parameters():
        assert parameter.data_ptr() == own[name].data_ptr()
        assert not parameter.requires_grad
    assert frame.names == ("x",)
    assert len(frame.inputs) == 1


def test_two_models_in_one_graph_keep_their_weights_apart() -> None:
    one, other = Mlp().eval(), Mlp().eval()

    def call(first: nn.Module, second: nn.Module, x: Tensor) -> Any:
        return first(x) + second(x)

    x = batches(1)[0]
    (frame,) = captured(call, one, other, x)
    (result,) = frame.graph(x)
    assert torch.equal(result, one(x) + other(x))


def test_what_the_model_writes_to_or_replaces_stays_an_input() -> None:
    model = Counting().eval()
    (frame,) = captured(model, batches(1)[0])
    names = {str(n.target) for n in frame.graph.graph.nodes if n.op == "get_attr"}
    assert names == {"linear.weight", "linear.bias"}
    assert len(frame.inputs) == 3
    assert len(frame.written) == 1


def test_a_buffer_that_is_an_input_is_no_data() -> None:
    class Masked(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)
            self.register_buffer("mask", torch.rand(8, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.mask

    model, x = Masked().eval(), batches(1)[0]
    (frame,) = captured(model, x)
    backend = quantfx.backends.get("x86", target="any")
    planned = [
        [node.target for node in backend.prepare(graph).graph.nodes if node.op == "call_module"]
        for graph in (frame.graph, unchecked.capture(model, (x,)))
    ]
    assert planned[0] == planned[1]


def test_sizes_come_from_tensors() -> None:
    class Reshapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.view(x.shape[0] * x.shape[1], WIDTH)).view(*x.shape)

    model = Reshapes().eval()
    x = torch.rand(3, 5, WIDTH)
    (frame,) = captured(model, x, dynamic=True)
    assert len(frame.inputs) == 1
    for shape in ((3, 5, WIDTH), (2, 7, WIDTH)):
        x = torch.rand(*shape)
        assert torch.equal(frame.graph(x)[0], model(x))


def test_floats_of_modules_are_constants_with_free_sizes() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(WIDTH, eps=0.125)
            self.linear = nn.Linear(WIDTH, WIDTH)
            self.factor = 0.375

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(x)) * self.factor

    model, x = Scales().eval(), batches(1)[0]
    (frame,) = captured(model, x, dynamic=True)
    (norm,) = frame.graph.graph.find_nodes(
        op="call_function", target=torch.ops.aten.layer_norm.default
    )
    assert 0.125 in norm.args
    (mul,) = frame.graph.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    assert 0.375 in mul.args
    assert torch.equal(frame.graph(x)[0], model(x))


def test_regions_without_gradients_leave_no_trace() -> None:
    class Region(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.linear(x)
            return self.linear(y)

    (frame,) = captured(Region().eval(), batches(1)[0])
    assert operators(frame.graph) == ["aten.linear.default"] * 2
    assert torch.is_grad_enabled()


def test_branches_of_control_flow_are_captured() -> None:
    class Either(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(WIDTH, WIDTH)
            self.other = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Any:
            return torch.cond(x.sum() > 0, self.one, self.other, (x,))

    model, x = Either().eval(), batches(1)[0]
    for dynamic in (False, True):
        torch.compiler.reset()
        (frame,) = captured(model, x, dynamic=dynamic)
        for sign in (1, -1):
            assert torch.equal(frame.graph(x + sign)[0], model(x + sign))


def test_captured_under_autocast_it_is_the_models_own_graph() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    with torch.autocast("cpu", torch.bfloat16):
        (frame,) = captured(model, x)
    values = [node.meta["val"].dtype for node in frame.graph.graph.nodes if "val" in node.meta]
    assert set(values) == {torch.float32}


class Unrounded(nn.Module):
    """Switches autocast off around what must not be rounded, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y: Tensor = self.linear(x)
        return y.relu()


def test_a_region_without_autocast_is_none_where_autocast_is_off() -> None:
    model, x = Unrounded().eval(), batches(1)[0]
    (frame,) = captured(model, x)
    assert torch.equal(frame.graph(x)[0], model(x))
    names = [str(node.target) for node in frame.graph.graph.nodes if node.op == "call_function"]
    assert names == ["aten.linear.default", "aten.relu.default"]


def test_a_region_without_autocast_in_one_with_it_is_refused() -> None:
    model, x = Unrounded().eval(), batches(1)[0]
    with (
        torch.autocast("cpu", torch.bfloat16),
        refused("not-an-operator", BackendCompilerFailed, says="_enter_autocast"),
    ):
        captured(model, x)


def test_a_batch_norm_without_running_statistics_is_no_training() -> None:
    model = nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    (frame,) = captured(model.eval(), torch.rand(2, 3, 8, 8))
    assert frame.training == ""
    (frame,) = captured(nn.Sequential(nn.BatchNorm2d(3)).train(), torch.rand(2, 3, 8, 8))
    assert frame.training == "a batch norm is in training mode"


def test_guards_are_on_weights_and_modes_only() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    seen: list[FrameGraph] = []

    def backend(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        seen.append(capture_frame(module, inputs, current_frame()))
        return module.forward

    fast = torch.compile(model, backend=backend)
    counters.clear()
    for change in (lambda: None, model.first.train, model.first.eval):
        change()
        fast(x)
    assert len(seen) == 2
    assert seen[1].training == "Linear is in training mode"
    model.second.bias = nn.Parameter(torch.zeros(8))
    fast(x)
    assert len(seen) == 3

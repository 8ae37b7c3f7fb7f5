"""Noise of training is one call, with the random numbers of the model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.export.training_noise import NAME, TrainingNoise, is_noise
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.train.settle_modes import SettleModes
from tests.models.by_mode import SHAPE, Base, ByFloor, GaussianNoise, StochasticDepth
from tests.unchecked import capture

FREE = ({0: torch.export.Dim("n", min=2, max=64)},)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def captured(kind: type[Base], shapes: object = None) -> GraphModule:
    torch.manual_seed(0)
    return capture(kind().train(), (X,), training=True, dynamic_shapes=shapes)


def noise_of(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if is_noise(node)]


def calls_in(graph: GraphModule, node: Node) -> list[str]:
    module = graph.get_submodule(str(node.target))
    assert isinstance(module, TrainingNoise)
    nodes = module.noise.graph.nodes
    return [op_name(each) for each in nodes if each.op == "call_function"]


def test_all_that_makes_the_noise_is_in_one_call() -> None:
    graph = captured(StochasticDepth)
    [node] = noise_of(graph)
    assert str(node.target) == NAME
    assert [source.name for source in node.all_input_nodes] == ["linear", "training_mode"]
    assert calls_in(graph, node) == ["new_empty", "bernoulli_", "div_", "mul"]
    outside = [op_name(each) for each in graph.graph.nodes if each.op == "call_function"]
    assert outside == ["linear", "add", "linear"]
    floored = captured(ByFloor)
    assert calls_in(floored, noise_of(floored)[0]) == ["rand", "add", "div", "floor_", "mul"]
    assert len(noise_of(captured(GaussianNoise))) == 2


def test_in_evaluation_it_is_the_very_input() -> None:
    graph = captured(StochasticDepth, FREE)
    module = graph.get_submodule(NAME)
    assert module(X, False) is X
    kept = [bool(row.any()) for row in module(torch.ones(64, 6, 8), True)]
    assert {True, False} == set(kept)


def test_sizes_of_the_mask_are_those_of_the_tensor() -> None:
    graph = captured(StochasticDepth, FREE)
    assert calls_in(graph, noise_of(graph)[0])[0] == "sym_size"
    x = torch.randn(64, 6, 8)
    torch.manual_seed(0)
    rows = (graph.train()(x) - graph.eval()(x)).flatten(1).abs().sum(1)
    assert bool((rows > 0).all())  # a branch is dropped or doubled, in each of the 64


def test_it_keeps_no_state_and_is_copied() -> None:
    graph = captured(StochasticDepth)
    assert not [name for name in graph.state_dict() if name.startswith(NAME)]
    twin = copy.deepcopy(graph)
    results: list[Tensor] = []
    for module in (graph, twin):
        torch.manual_seed(3)
        results.append(module(X))
    assert torch.equal(*results)


def test_settled_it_is_gone() -> None:
    settled = Pipeline((SettleModes(),)).run(captured(StochasticDepth))
    assert not settled.graph.find_nodes(op="call_module")
    assert not [each for each in settled.modules() if isinstance(each, TrainingNoise)]
    evaluated = captured(StochasticDepth).eval()
    assert torch.equal(settled(X), evaluated(X))


def test_a_gradient_flows_through_what_is_kept() -> None:
    module: nn.Module = captured(StochasticDepth, FREE).get_submodule(NAME)
    x = torch.ones(64, 6, 8, requires_grad=True)
    module(x, True).sum().backward()
    assert x.grad is not None
    assert set(x.grad.flatten().tolist()) == {0.0, 2.0}

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from quantfx.passes.draw.canonical_order import canonical_names, canonical_order
from quantfx.passes.graph.scopes import module_scope
from tests.drawing_samples import ATEN, SAMPLES, Residual, capture, counting, shuffled


def names(module: GraphModule) -> list[str]:
    return list(canonical_names(canonical_order(module.graph)).values())


def test_producers_come_first_in_argument_order() -> None:
    graph = Graph()
    unused, x, y = (graph.placeholder(name) for name in ("unused", "x", "y"))
    dead = graph.call_function(ATEN.neg.default, (unused,))
    right = graph.call_function(ATEN.relu.default, (y,))
    left = graph.call_function(ATEN.neg.default, (x,))
    total = graph.call_function(ATEN.sub.Tensor, (left, right))
    output = graph.output((total, x))
    assert canonical_order(graph) == [x, left, y, right, total, output]
    assert dead not in canonical_order(graph)


def test_keyword_arguments_are_walked_by_name() -> None:
    graph = Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    node = graph.call_function(ATEN.sub.Tensor, (), {"self": x, "other": y})
    graph.output(node)
    assert canonical_order(graph)[:2] == [y, x]


def test_names_are_module_scope_and_operator() -> None:
    assert names(capture(Residual(), torch.zeros(1, 3, 8, 8))) == [
        "x",
        "stem.weight",
        "stem.bias",
        "stem/conv2d",
        "relu",
        "max_pool2d",
        "layer.0.conv1.weight",
        "layer.0.conv1.bias",
        "layer.0.conv1/conv2d",
        "layer.0.relu/relu",
        "layer.0.conv2.weight",
        "layer.0.conv2.bias",
        "layer.0.conv2/conv2d",
        "layer.0/add",
        "layer.0.relu/relu#2",
        "mean",
        "fc.weight",
        "fc.bias",
        "fc/linear",
        "output",
    ]


def test_what_stands_for_a_tensor_is_named_after_it() -> None:
    quantized = names(SAMPLES["quantized"]())
    assert quantized[:3] == ["x", "x:q", "x:dq"]
    # The pool's output is read twice, through a dq each.
    assert {"max_pool2d:q", "max_pool2d:dq", "max_pool2d:dq#2"} < set(quantized)
    assert "stem.weight_int8:dq" in quantized
    assert {"x:observe", "stem.weight:observe"} < set(names(SAMPLES["observed"]()))
    dynamic = names(SAMPLES["dynamic"]())
    assert dynamic[:5] == [
        "input",
        "choose_qparams",
        *(f"choose_qparams[{i}]" for i in (0, 1)),
        "input:q",
    ]


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("", ""),
        ("layer.0", "layer.0"),
        ("layer.0@1", "layer.0"),
        ("L['self'].layer.0", "layer.0"),
        ("L['s']", ""),
        ("G['net'].relu@2", "relu"),
        ("L__self__.relu", "relu"),
        ("_empty_nn_module_stack_from_metadata_hook", ""),
    ],
)
def test_scopes_lose_the_name_of_the_root_and_call_counters(path: str, scope: str) -> None:
    node = Graph().placeholder("x")
    node.meta["nn_module_stack"] = {"outer": ("outer", nn.Module), "own": (path, nn.Module)}
    assert module_scope(node) == scope


@pytest.mark.parametrize("sample", SAMPLES)
def test_order_and_names_do_not_depend_on_node_names_or_node_order(sample: str) -> None:
    module = SAMPLES[sample]()
    expected = names(module)
    assert len(set(expected)) == len(expected)
    assert [names(shuffled(module, seed)) for seed in range(10)] == [expected] * 10


def test_side_effects_are_live_and_ordered_by_what_they_do() -> None:
    expected = ["x", "relu", "calls", "add_", "steps", "add_#2", "output"]
    assert sorted(names(counting())) == sorted(expected)
    assert "neg" not in names(counting())


def test_deep_graphs_do_not_recurse() -> None:
    graph = Graph()
    node = graph.placeholder("x")
    for _ in range(5000):
        node = graph.call_function(ATEN.relu.default, (node,))
    graph.output(node)
    order = canonical_order(graph)
    assert order == list(graph.nodes)
    assert canonical_names(order)[node] == "relu#5000"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, Node

from quantfx.backends.x86 import pattern_set, x86
from quantfx.passes.report.contract import planned_matches
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.matcher import Admission
from quantfx.patterns.schema import argument_value
from quantfx.patterns.template import Template
from quantfx.tools.bench.passes import conv_chain
from tests.export_cases import CASES, IMAGE, ExportCase, Net
from tests.unchecked import capture

aten = torch.ops.aten
PROPAGATED = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "cat", "flatten"}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_exported_cases(case: ExportCase) -> None:
    graph = capture(case.make(), case.inputs, dict(case.kwargs) or None)
    prepared = x86().prepare(graph, strict=False)
    found = [
        match.annotation.template
        for match in planned_matches(prepared)
        if match.annotation.kind not in PROPAGATED
    ]
    assert tuple(found) == case.matches


class Builder:
    """Builds a graph by hand: spellings that torch.export would not give."""

    def __init__(self) -> None:
        self.graph = Graph()

    def input(self, name: str, *shape: int) -> Node:
        return self._with_val(self.graph.placeholder(name), shape)

    def weight(self, name: str, *shape: int) -> Node:
        return self._with_val(self.graph.get_attr(name), shape)

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
        node = self.graph.call_function(target, args, kwargs)
        return self._with_val(node, tuple(args[0].meta["val"].shape) if args else (1, 4, 8, 8))

    def matches(self, *outputs: Node) -> list[Match]:
        self.graph.output(outputs)
        return pattern_set().matcher().run(self.graph)

    def _with_val(self, node: Node, shape: tuple[int, ...]) -> Node:
        node.meta["val"] = torch.empty(shape)
        return node


def conv_net() -> tuple[Builder, Node, Node]:
    build = Builder()
    return build, build.input("x", 1, 4, 8, 8), build.weight("w", 4, 4, 1, 1)


def test_keyword_positional_and_defaulted_arguments_are_one() -> None:
    spellings: tuple[Callable[[Builder, Node, Node], Node], ...] = (
        lambda b, x, w: b.call(aten.conv2d.default, x, w),
        lambda b, x, w: b.call(aten.conv2d.default, x, weight=w, bias=None),
        lambda b, x, w: b.call(aten.conv2d.default, x, w, None, [1, 1], [0, 0], [1, 1], 1),
    )
    for spell in spellings:
        build, x, w = conv_net()
        [match] = build.matches(spell(build, x, w))
        assert match.label == "conv2d"
        assert match.roles == {"x": x, "w": w, "b": None}


def test_alpha_spelled_out_is_an_add_but_alpha_two_is_not() -> None:
    for alpha, label in ((1, "conv2d_add"), (2, "conv2d")):
        build, x, w = conv_net()
        other = build.call(aten.tanh.default, x)
        conv = build.call(aten.conv2d.default, x, w)
        [match] = build.matches(build.call(aten.add.Tensor, conv, other, alpha=alpha))
        assert match.label == label


def test_cat_binds_all_tensors_and_the_same_one_twice() -> None:
    build, x, _ = conv_net()
    y = build.call(aten.relu.default, x)
    cat = build.graph.call_function(aten.cat.default, ([x, y, x],))
    [match] = build.matches(cat)
    assert match.roles["xs"] == (x, y, x)
    assert [(edge.slot, edge.producer) for edge in match.edges()] == [
        ("tensors.0", x),
        ("tensors.1", y),
        ("tensors.2", x),
    ]


def test_a_matmul_of_one_tensor_has_two_edges() -> None:
    build, x, _ = conv_net()
    [match] = build.matches(build.call(aten.matmul.default, x, x))
    assert [edge.slot for edge in match.edges()] == ["self", "other"]


def test_a_symbolic_integer_is_not_a_tensor() -> None:
    build, x, _ = conv_net()
    size = build.graph.call_function(aten.sym_size.int, (x, 0))
    size.meta["val"] = 3
    assert build.matches(build.call(aten.mul.Tensor, x, size)) == []


def test_dead_operators_do_not_match() -> None:
    build, x, w = conv_net()
    build.call(aten.conv2d.default, x, w)
    assert build.matches(build.call(aten.relu.default, x)) == []


def test_earlier_templates_claim_first_and_losers_match_smaller() -> None:
    build, x, w = conv_net()
    first, second = (build.call(aten.conv2d.default, x, w) for _ in range(2))
    matches = build.matches(build.call(aten.add.Tensor, first, second))
    assert [(m.label, m.anchor) for m in matches] == [("conv2d_add", first), ("conv2d", second)]


def test_claimed_nodes_are_invisible() -> None:
    build, x, w = conv_net()
    conv = build.call(aten.conv2d.default, x, w)
    build.graph.output(build.call(aten.relu.default, conv))
    assert pattern_set().matcher().run(build.graph, claimed=[conv]) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda c, x: c(x) + 1.0, "add.other is 1.0, not a tensor"),
        (lambda c, x: torch.add(c(x), x.tanh(), alpha=2), "add.alpha is 2, not 1"),
        (lambda c, x: (y := c(x)) + y, "conv2d is both $extra and part of the match"),
        (lambda c, x: c(x) + x, "distinct: x takes both places"),
        (lambda c, x: c(x) + x.tanh()[:, :1], "same_shape: conv2d has shape [2, 4, 8, 8], slice_1 [2, 1, 8, 8]"),
        (lambda c, x: ((y := c(x)).relu(), y + x.tanh()), "conv2d has 2 users"),
        (lambda c, x: c(x) * x.tanh(), "mul is aten.mul.Tensor, not add"),
        (lambda c, x: (t := x.tanh(), c(x) + t, t.sin())[1:], "dies_here: sin uses tanh after conv2d"),
    ],
)  # fmt: skip
def test_near_misses_say_why(body: Callable[..., Any], reason: str) -> None:
    graph = capture(Net(body, nn.Conv2d(4, 4, 1)).eval(), (IMAGE,)).graph
    [conv] = graph.find_nodes(op="call_function", target=aten.conv2d.default)
    matcher = load("pt2e").group("conv").matcher()
    misses = [miss for miss in matcher.explain(conv) if miss.label == "conv2d_add"]
    assert [miss.reason for miss in misses] == [reason]
    assert not misses[0]


def test_explain_lists_the_deepest_failure_first() -> None:
    build, x, w = conv_net()
    conv = build.call(aten.conv2d.default, x, w)
    build.graph.output(build.call(aten.add.Tensor, conv, 2.0))
    misses = load("pt2e").group("conv").matcher().explain(conv)
    assert [miss.depth for miss in misses] == sorted((m.depth for m in misses), reverse=True)


def test_matching_is_linear_in_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in argument look-ups, which do not depend on the machine."""
    calls = [0]

    def counted(node: Node, name: str) -> Any:
        calls[0] += 1
        return argument_value(node, name)

    monkeypatch.setattr("quantfx.patterns.matcher.argument_value", counted)
    counts: list[int] = []
    for blocks in (50, 100, 400):
        calls[0] = 0
        assert len(pattern_set().matcher().run(conv_chain(blocks).graph)) == 2 * blocks
        counts.append(calls[0])
    assert counts[1] <= 2.1 * counts[0]
    assert counts[2] <= 4.1 * counts[1]


def test_matches_do_not_depend_on_names() -> None:
    def labels(rename: bool) -> list[str]:
        graph = capture(
            Net(lambda c, x: (c(x) + x.tanh()).relu(), nn.Conv2d(4, 4, 1)).eval(), (IMAGE,)
        ).graph
        for index, node in enumerate(graph.nodes):
            if rename:
                node.name = f"n{index}"
        return [match.label for match in pattern_set().matcher().run(graph)]

    assert labels(rename=True) == labels(rename=False) == ["conv2d_add_relu"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_a_summand_of_another_dtype_is_not_taken(dtype: torch.dtype) -> None:
    model = Net(lambda c, x: c(x) + x.tanh().to(dtype), nn.Conv2d(4, 4, 1)).eval()
    graph = capture(model, (IMAGE,)).graph
    assert [match.label for match in pattern_set().matcher().run(graph)] == ["conv2d"]


class Refuses(Admission):
    """Refuses one label, and one template anywhere."""

    def tries(self, template: Template, anchor: Node) -> bool:
        return template.name != "linear"

    def refuses(self, match: Match) -> str | None:
        return "not today" if match.label == "conv2d_add_relu" else None


def test_a_refused_match_leaves_its_nodes_to_the_next_template() -> None:
    model = Net(lambda c, x: (c(x) + x.tanh()).relu(), nn.Conv2d(4, 4, 1)).eval()
    graph = capture(model, (IMAGE,)).graph
    matcher = load("pt2e").matcher()
    [conv] = graph.find_nodes(op="call_function", target=aten.conv2d.default)
    assert [m.label for m in matcher.run(graph, admission=Refuses())] == ["conv2d_add"]
    refused = matcher.explain(conv, admission=Refuses())[0]
    assert (refused.label, refused.reason) == ("conv2d_add_relu", "not today")
    rows = capture(Net(lambda c, x: c(x), nn.Linear(8, 8)).eval(), (IMAGE,)).graph
    assert matcher.run(rows, admission=Refuses()) == []

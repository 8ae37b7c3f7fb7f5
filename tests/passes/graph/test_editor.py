from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node

from quantfx.passes.errors import PassError
from quantfx.passes.graph.editor import PROVENANCE_KEY, Editor
from quantfx.passes.graph.graphs import attribute, referent
from quantfx.patterns.schema import resolve_op
from tests.models.small import mlp
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(4, 8)


def module_and_relu() -> tuple[GraphModule, Node]:
    module = capture(mlp(), (X,))
    [relu] = module.graph.find_nodes(op="call_function", target=resolve_op("aten.relu.default"))
    return module, relu


def test_new_nodes_carry_meta_and_provenance() -> None:
    module, relu = module_and_relu()
    editor = Editor(module, "mine")
    new = editor.call(resolve_op("aten.gelu.default"), relu.args, like=relu, after=relu)
    assert new.meta["nn_module_stack"] == relu.meta["nn_module_stack"]
    assert new.meta["stack_trace"] == relu.meta["stack_trace"]
    assert new.meta["val"].shape == relu.meta["val"].shape
    assert new.meta[PROVENANCE_KEY] == "mine"
    assert editor.edits == 1
    editor.replace(relu, new)
    module.graph.lint()
    assert editor.edits == 2


def test_a_new_node_needs_a_place() -> None:
    module, relu = module_and_relu()
    with refused("node-place", PassError, fix="before="):
        Editor(module, "mine").call(resolve_op("aten.gelu.default"), relu.args)


def test_constants_get_free_names_and_fake_values() -> None:
    module, relu = module_and_relu()
    editor = Editor(module, "mine")
    first = editor.constant("a.b", torch.ones(2), like=relu, before=relu)
    second = editor.constant("a.b", torch.zeros(2), like=relu, before=relu)
    assert (first.target, second.target) == ("a.b", "a.b_1")
    torch.testing.assert_close(attribute(module, "a.b_1"), torch.zeros(2))
    assert type(first.meta["val"]) is type(relu.meta["val"])


class Halves(nn.Module):
    """One of an operator's two results."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(-1)[0]


def test_what_is_made_for_an_operator_with_several_results_is_fake() -> None:
    module = capture(Halves().eval(), (X,))
    [sort] = module.graph.find_nodes(op="call_function", target=resolve_op("aten.sort.default"))
    editor = Editor(module, "mine")
    order = editor.call(resolve_op("aten.arange.default"), (4,), before=sort)
    ones = editor.constant("ones", torch.ones(2), before=sort)
    assert {type(each.meta["val"]) for each in (order, ones)} == {FakeTensor}


def test_a_constant_with_one_reader_is_replaced_under_its_name() -> None:
    module, _ = module_and_relu()
    [linear, _] = module.graph.find_nodes(
        op="call_function", target=resolve_op("aten.linear.default")
    )
    weight = linear.args[1]
    assert isinstance(weight, Node)
    editor = Editor(module, "mine")
    kept = editor.changed_constant(weight, torch.zeros(16, 8), before=linear)
    assert kept is weight
    assert float(referent(module, weight).abs().max()) == 0  # type: ignore[attr-defined]
    other = editor.call(torch.ops.aten.neg.default, (weight,), like=linear, before=linear)
    assert other in weight.users
    fresh = editor.changed_constant(weight, torch.ones(16, 8), before=linear)
    assert fresh is not weight, "somebody else reads it"
    same = editor.changed_constant(weight, torch.ones(16, 8), before=linear)
    assert same is fresh, "values that are stored already"
    assert editor.changed_constant(weight, torch.zeros(16, 8), before=linear) is not fresh


def test_unused_tensors_are_dropped_and_used_modules_kept() -> None:
    module, relu = module_and_relu()
    editor = Editor(module, "mine")
    editor.constant("unused", torch.ones(2), like=relu, before=relu)
    module.add_module("inner", nn.Linear(2, 2))
    editor.call_module("inner", module.get_submodule("inner"), relu, after=relu)
    before = len(module.state_dict())
    assert editor.drop_unused_attributes() == 1
    assert len(module.state_dict()) == before - 1
    assert "inner.weight" in module.state_dict()

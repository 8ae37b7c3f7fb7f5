"""What is planned, held against the template of each match."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from quantfx.passes.quant.annotation import annotation_of, set_annotation
from quantfx.tools.fuzz.check_plans import wrong_plans
from tests.tools.fuzz.shared import X86, node_of, rewrite, shared


def lines_of(module: GraphModule) -> list[str]:
    return [line.partition(": ")[2] for line in wrong_plans(module, X86.recipe.patterns)]


def test_what_templates_allow_is_not_named() -> None:
    assert lines_of(shared()) == []


def test_a_node_that_a_match_lost_is_named() -> None:
    module = shared()
    set_annotation(node_of(module, "relu"), None)
    assert lines_of(module)[0] == "it has 2 nodes, not 3"


def test_another_reader_of_what_is_inside_is_named() -> None:
    module = shared()
    inside = node_of(module, "add")
    with module.graph.inserting_after(inside):
        module.graph.call_function(torch.ops.aten.tanh.default, (inside,))
    assert lines_of(module) == [f"others read {inside.name}, which is inside"]


def test_a_broadcast_is_named() -> None:
    module = shared()
    node_of(module, "tanh").meta["val"] = torch.empty(2, 3, 8, 1)
    assert lines_of(module) == [f"{node_of(module, 'add').name} broadcasts"]


def test_an_input_that_is_not_quantized_is_named() -> None:
    module = shared()
    layer = node_of(module, "conv2d")
    annotation = annotation_of(layer)
    assert annotation is not None
    rewrite(layer, inputs=annotation.inputs[:1])
    assert lines_of(module) == ["2 inputs are quantized, not x, w, extra"]


def test_a_quantized_tensor_of_another_dtype_is_named() -> None:
    module = shared()
    node_of(module, "tanh").meta["val"] = torch.empty(2, 3, 8, 8, dtype=torch.float64)
    [line] = lines_of(module)
    assert line.endswith(" is torch.float64")


def test_what_passes_int8_on_and_reads_floats_is_named() -> None:
    module = shared()
    pool, relu = node_of(module, "max_pool2d"), node_of(module, "relu")
    pool.replace_input_with(relu, node_of(module, "tanh"))
    assert "its input tanh is float" in lines_of(module)


def test_int8_that_changes_its_group_is_named() -> None:
    module = shared()
    pool = node_of(module, "max_pool2d")
    rewrite(pool, groups=(("self", "one"), ("", "other")))
    assert lines_of(module) == ["int8 does not pass through groups one, other"]

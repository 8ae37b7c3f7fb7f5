"""Which observers the pipeline shares: pass-through operators, cat, readers of one tensor, branches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.annotation import annotation_of
from quantfx.passes.capture import capture
from quantfx.passes.graphs import all_graphs
from tests.export_cases import CASES, IMAGE, Net


def groups(module: GraphModule) -> dict[str, set[str]]:
    """Return the activation groups with more than one site."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            annotation = annotation_of(node)
            for slot, group in annotation.groups if annotation else ():
                if slot != "weight":
                    found[group].add(f"{path}/{node.name}.{slot}".strip("/"))
    return {group: sites for group, sites in found.items() if len(sites) > 1}


def prepared(body: Callable[..., Any], *layers: nn.Module) -> GraphModule:
    return x86().prepare(capture(Net(body, *layers).eval(), (IMAGE,)))


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1)


def test_pooling_shares_in_and_out_transitively() -> None:
    module = prepared(lambda a, b, x: b(F.avg_pool2d(F.max_pool2d(a(x), 2), 2)), conv(), conv())
    assert groups(module) == {
        "max_pool2d": {
            "max_pool2d.self", "max_pool2d.", "avg_pool2d.self", "avg_pool2d.", "conv2d_1.input"
        }
    }  # fmt: skip


def test_cat_shares_all_of_its_inputs_with_its_output() -> None:
    module = prepared(lambda a, b, x: torch.cat([a(x), b(x), a(x)], 1), conv(), conv())
    [sites] = [s for g, s in groups(module).items() if "cat" in g]
    assert sites == {"cat.tensors.0", "cat.tensors.1", "cat.tensors.2", "cat."}


def test_cat_of_one_tensor_twice() -> None:
    module = prepared(lambda a, x: torch.cat([(y := a(x)), y], 1), conv())
    [sites] = [s for g, s in groups(module).items() if "cat" in g]
    assert sites == {"cat.tensors.0", "cat.tensors.1", "cat."}
    names = [str(n.target) for n in module.graph.nodes if n.op == "call_module"]
    observed = [name for name in names if names.count(name) > 1]
    assert len(set(observed)) == 1, "one object observes what goes into and what comes out of cat"


def test_readers_of_one_tensor_share_one_observer() -> None:
    module = prepared(lambda a, b, x: a(x) * b(x), conv(), conv())
    assert groups(module) == {"conv2d": {"conv2d.input", "conv2d_1.input"}} or groups(module) == {
        "conv2d.input": {"conv2d.input", "conv2d_1.input"}
    }
    assert len(module.graph.find_nodes(op="call_module", target="activation_post_process_0")) == 1


def test_a_tensor_passed_into_branches_is_one_tensor() -> None:
    case = CASES["cond"]
    module = x86().prepare(capture(case.make(), case.inputs))
    [sites] = groups(module).values()
    assert {site.split("/")[0] for site in sites} == {"true_graph_0", "false_graph_0"}


def test_the_groups_do_not_depend_on_the_order_of_annotators() -> None:
    def both(x: Tensor) -> GraphModule:
        return capture(
            Net(lambda a, b, x: torch.cat([a(x), F.max_pool2d(b(x), 1)], 1) * 1.0, conv(), conv())
            .eval(), (x,),
        )  # fmt: skip

    backend = x86()
    swapped = (
        backend.prepare_pipeline.move("annotate-max-pool", before="annotate-conv")
        .move("annotate-mul", before="annotate-conv")
        .move("annotate-linear", before="annotate-conv")
    )
    one = backend.prepare_pipeline.run(both(IMAGE), backend.context)
    two = swapped.run(both(IMAGE), backend.context)
    assert groups(one) == groups(two)
    assert str(one.graph) == str(two.graph)

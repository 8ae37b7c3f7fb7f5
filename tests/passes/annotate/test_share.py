"""Which observers the pipeline shares: pass-through operators, cat, readers of one tensor, branches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.backends.x86 import x86
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.quant.annotation import annotation_of
from quantfx.patterns.schema import argument_value
from tests.export_cases import CASES, IMAGE, Net
from tests.unchecked import capture


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


def find(module: GraphModule, name: str) -> Node:
    return next(node for node in module.graph.nodes if node.name == name)


def observers_around(module: GraphModule, name: str) -> set[str]:
    """Return the names of the observers of the activations that a node reads and yields."""
    node = find(module, name)
    around = [each for each in (*node.all_input_nodes, *node.users) if each.op == "call_module"]
    return {str(n.target) for n in around if n.all_input_nodes[0].op != "get_attr"}


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


def test_cat_of_one_input() -> None:
    module = prepared(lambda a, b, x: b(torch.cat([a(x)], 1)), conv(), conv())
    assert groups(module) == {"cat": {"cat.tensors.0", "cat.", "conv2d_1.input"}}


def test_cat_of_a_tensor_and_another_between_its_copies() -> None:
    module = prepared(lambda a, b, x: torch.cat([(y := a(x)), b(x), y], 1), conv(), conv())
    assert groups(module)["cat"] == {"cat.tensors.0", "cat.tensors.1", "cat.tensors.2", "cat."}
    assert len(observers_around(module, "cat")) == 1


def test_cat_of_cats_is_one_group_down_to_the_reader() -> None:
    def body(a: nn.Module, b: nn.Module, c: nn.Module, x: Tensor) -> Tensor:
        left, right = torch.cat([a(x), b(x)], 2), torch.cat([b(x), a(x)], 2)
        return c(torch.cat([left, right], 3))

    module = prepared(body, conv(), conv(), conv())
    assert groups(module)["cat"] == {
        *(f"{name}.tensors.{index}" for name in ("cat", "cat_1", "cat_2") for index in (0, 1)),
        "cat.", "cat_1.", "cat_2.", "conv2d_4.input",
    }  # fmt: skip


def test_two_cats_that_read_one_tensor_are_one_group() -> None:
    def body(a: nn.Module, b: nn.Module, c: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        y = b(x)
        return torch.cat([a(x), y], 1), torch.cat([y, c(x)], 1)

    module = prepared(body, conv(), conv(), conv())
    assert groups(module)["cat"] == {
        "cat.tensors.0", "cat.tensors.1", "cat.", "cat_1.tensors.0", "cat_1.tensors.1", "cat_1."
    }  # fmt: skip


def test_a_chain_of_pools_cat_and_flatten_is_one_group() -> None:
    def body(a: nn.Module, b: nn.Module, fc: nn.Module, x: Tensor) -> Tensor:
        pooled = [F.max_pool2d(a(x), 2), F.avg_pool2d(b(x), 2)]
        return fc(F.adaptive_avg_pool2d(torch.cat(pooled, 1), 2).flatten(1))

    module = prepared(body, conv(), conv(), nn.Linear(32, 4))
    assert groups(module)["max_pool2d"] == {
        "max_pool2d.self", "max_pool2d.", "avg_pool2d.self", "avg_pool2d.",
        "cat.tensors.0", "cat.tensors.1", "cat.", "adaptive_avg_pool2d.self",
        "adaptive_avg_pool2d.", "flatten.self", "flatten.", "linear.input",
    }  # fmt: skip
    [last] = observers_around(module, "linear")
    assert observers_around(module, "max_pool2d") == {last}


def test_a_tensor_that_meets_its_own_pool_again_is_harmless() -> None:
    """y, its pool and their cat are tied in a circle."""

    def body(a: nn.Module, b: nn.Module, x: Tensor) -> Tensor:
        y = a(x)
        return b(torch.cat([y, F.max_pool2d(y, 3, 1, 1)], 2))

    assert groups(prepared(body, conv(), conv())) == {
        "max_pool2d": {
            "max_pool2d.self", "max_pool2d.", "cat.tensors.0", "cat.tensors.1", "cat.",
            "conv2d_1.input",
        }
    }  # fmt: skip


def test_residual_loops_share_within_a_block_and_not_across() -> None:
    """A block's input is read by its first convolution and by its sum: one tensor, one observer."""

    def body(*layers: Any) -> Tensor:
        *convs, x = layers
        y = F.relu(convs[0](x))
        for one, two in zip(convs[1::2], convs[2::2], strict=True):
            y = F.relu(two(F.relu(one(y))) + y)
        return y

    module = prepared(body, *(conv() for _ in range(5)))
    assert set(map(frozenset, groups(module).values())) == {
        frozenset({"conv2d_1.input", "add.other"}),
        frozenset({"conv2d_3.input", "add_1.other"}),
    }


def test_a_float_input_keeps_the_others_of_a_cat_apart() -> None:
    module = prepared(lambda a, b, x: b(torch.cat([a(x), x.tanh()], 2)), conv(), conv())
    assert groups(module) == {}


def test_a_shared_observer_sees_every_tensor_of_its_group() -> None:
    """So its range covers the larger of two inputs, whichever comes first."""
    big, small = conv(), conv()
    with torch.no_grad():
        big.weight.mul_(100)
    for layers in ((small, big), (big, small)):
        module = prepared(lambda a, b, x: torch.cat([a(x), b(x)], 1), *layers)
        calibrate(module, [IMAGE])
        quantized = x86().convert(module)
        into = [each.all_input_nodes[0] for each in find(quantized, "cat").all_input_nodes]
        scales = {(argument_value(q, "scale"), argument_value(q, "zero_point")) for q in into}
        assert len(scales) == 1
        with torch.no_grad():
            largest = float(big(IMAGE).abs().max())
        [(scale, _)] = scales
        assert 255 * scale > largest


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

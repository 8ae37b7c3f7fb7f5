"""Gather operators of the direct runtime into regions, each of which becomes one call."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.backends.direct.partition import partition, unvarying
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import captured_layout, region_key
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.runtime.steps import Program
from quantfx.backends.direct.taken import is_int8_product, refusal
from quantfx.backends.direct.tuned import RouteTimes, routes_for
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, constant
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.lowered import Lowered, set_kernels, set_region

# Products per float image that a region may pass on.
_PRODUCTS_AN_IMAGE = 8
_COSTLY = "its region would pass float images to other operators, which costs more than it saves"
_LOSES = "measured on this machine, torch's int8 operators are {:.2f} times as fast as its region"
_FLOAT_IS_FASTER = "measured on this machine, float operators are {:.2f} times as fast as int8"


class FormRegions(GraphPass):
    """``q(conv(dq(q(relu(conv(dq(x), ...)))), ...)) -> region(x)``: one call of prepared steps.

    A region is as large as can run at one point of the graph, and holds at least one int8
    convolution or linear. It keeps its part of the q/dq graph, from which a plan is made for each
    set of input shapes. A remark says why a planned site is in no region.
    """

    name = "form-regions"
    optional = True
    counts = "regions"
    requires = frozenset({"qdq"})
    keeps_float = False  # sums round differently from the float kernel

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Form the regions of one graph, if the backend has the family and its runtime."""
        families = [family for family in context.kernels if family.name == "direct"]
        if not families or runtime().reason:
            return 0
        refused = {node: reason for node in editor.graph.nodes if (reason := refusal(node))}
        refused |= dict.fromkeys(unvarying(editor.graph), "it depends on no input")
        refused |= dict.fromkeys(overwritten(editor.graph), "its memory is written to")
        # What a bisection leaves out of regions.
        left = (node for node in editor.graph.nodes if node not in refused)
        refused |= {node: LEFT_FLOAT for node in left if not _may(editor, node)}
        formed: list[tuple[list[Node], Formed]] = []
        known = routes_for(torch.get_num_threads())
        alone = any(family.alone for family in families)
        for members, made in _formed(editor, refused):
            layouts = list(map(captured_layout, made.inputs))
            times = known.get(region_key(made.region.graph, layouts))
            # Other families may take what does not pay.
            reason = "" if alone else _cost(members, made, times)
            if reason:
                refused |= dict.fromkeys(filter(_is_planned, members), reason)
                continue
            formed.append((members, made))
            if times is not None and times.float_wins:
                for node in filter(_is_planned, members):
                    message = _FLOAT_IS_FASTER.format(times.float_gain)
                    editor.remark("applied", node.name, message, str(node.target))
        results: dict[Node, Node] = {}
        for members, made in formed:
            inputs = tuple(results.get(node, node) for node in made.inputs)
            results |= _replace(editor, sorted(members), replace(made, inputs=inputs))
        for node, reason in refused.items():
            if _is_planned(node):
                editor.remark("missed", node.name, reason, str(node.target))
        if formed:
            editor.drop_unused_attributes()
        return len(formed)


def _formed(editor: Editor, refused: dict[Node, str]) -> list[tuple[list[Node], Formed]]:
    """Return the regions with their nodes; nodes that are refused on the way join ``refused``."""
    by_name = {node.name: node for node in editor.graph.nodes}
    known: dict[tuple[Node, ...], Formed] = {}  # a set that a refusal elsewhere leaves unchanged
    while True:
        sets = partition(editor.graph, lambda node: node not in refused)
        try:
            for members in map(tuple, sets):
                if members not in known:
                    known[members] = form(editor.module, list(members), editor.path)
            return [(members, known[tuple(members)]) for members in sets]
        except Untranslatable as error:
            node = by_name[error.node.name]
            inside = {member for members in sets for member in members}
            # A stored tensor is in no set, but those that read it are.
            blamed = [node] if node in inside else [each for each in node.users if each in inside]
            assert blamed, "a refusal that leaves out nothing would come again"
            refused.update(dict.fromkeys(blamed, error.reason))


def _cost(members: list[Node], made: Formed, times: RouteTimes | None) -> str:
    """Return why a region is better left to other families; empty if it pays."""
    if times is not None and times.loses:
        assert times.operators is not None, "what loses was measured"
        slower = _LOSES.format(times.plan / times.operators)
        faster = f"; {_FLOAT_IS_FASTER.format(times.float_gain)}" if times.float_wins else ""
        return slower + faster
    # A region measured as fastest is kept, whatever it passes on.
    measured = times is not None and times.operators is not None
    return "" if measured or _pays(members, made) else _COSTLY


def _pays(members: list[Node], made: Formed) -> bool:
    """Whether a region saves more than passing float images to other operators costs.

    Each image is laid out anew, which takes as long as one or two convolutions.
    """
    images = sum(
        value.dim() > 3 and value.dtype == torch.float32
        for node in made.outputs
        if isinstance(value := node.meta["val"], Tensor)
        and any(user.op != "output" and user not in members for user in node.users)
    )
    return images == 0 or sum(map(is_int8_product, members)) >= _PRODUCTS_AN_IMAGE * images


def _may(editor: Editor, node: Node) -> bool:
    """Whether a bisection lets a region have ``node``."""
    annotation = annotation_of(node)
    if annotation is None or annotation.match != node.name:
        return True
    return may(editor.by, annotation.template, Site(editor.path, node.name))


def _is_planned(node: Node) -> bool:
    annotation = annotation_of(node)
    if annotation is None or annotation.match != node.name:
        return False
    return annotation.reach != "loop"  # a name that no step has


@dataclass(frozen=True)
class Formed:
    """A region that may be formed.

    Attributes:
        region: The module to call.
        inputs: Nodes that it reads.
        outputs: Nodes whose values it yields.
        sites: The outcome of each of its planned sites.
    """

    region: Region
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    sites: tuple[Lowered, ...]


def form(module: GraphModule, members: list[Node], path: str = "") -> Formed:
    """Return the region of some nodes, checked by translating it for the captured shapes.

    Raises:
        Untranslatable: no step computes one of them.
    """
    inside = set(members)
    read = dict.fromkeys(
        each
        for node in members
        for each in node.all_input_nodes
        if each not in inside and each.op != "get_attr"
    )
    outputs = tuple(node for node in members if any(user not in inside for user in node.users))
    owner = GraphModule(nn.Module(), Graph())
    graph = owner.graph
    copies = {node: _placeholder(graph, node) for node in read}
    for node in members:
        for each in node.all_input_nodes:
            if each.op == "get_attr" and each not in copies:
                value = constant(module, each)
                assert value is not None, "taken asked for stored tensors"
                set_tensor(owner, str(each.target), value)
                copies[each] = graph.node_copy(each)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in outputs])
    program = translate(owner, list(map(captured_layout, read)))
    originals = {copy: node for node, copy in copies.items()}
    sites = tuple(_sites(program, originals, path))
    _require_int8(members, sites)
    owner.recompile()
    return Formed(Region(owner), tuple(read), outputs, sites)


def _placeholder(graph: Graph, node: Node) -> Node:
    made = graph.placeholder(node.name)
    made.meta = dict(node.meta)
    return made


def _sites(program: Program, originals: dict[Node, Node], path: str) -> Iterator[Lowered]:
    """Yield the outcome of each planned node: the step that computes it, with its other nodes."""
    for step in program.accounts():
        output = step.output
        assert output is not None
        nodes = [originals[node] for node in step.nodes]
        for node in nodes:
            annotation = annotation_of(node)
            if annotation is None or not _is_planned(node):
                continue
            covers = tuple(each.name for each in nodes)
            name = originals[output].name
            yield Lowered(Site(path, node.name), annotation.template, step.kernel, covers, name)


def _require_int8(members: list[Node], sites: tuple[Lowered, ...]) -> None:
    """Refuse products that no step computes on integers."""
    named = {each.site.node for each in sites}
    for node in members:
        planned = annotation_of(node) is not None and is_int8_product(node)
        if planned and node.name not in named:
            raise Untranslatable(node, "it is computed in float")


def call_region(editor: Editor, made: Formed, *, before: Node) -> tuple[Node, list[Node]]:
    """Write the call of a region; return the call and a node for each output."""
    name = editor.free_name("region_0")
    val = [node.meta.get("val") for node in made.outputs]
    like = made.outputs[0]
    call = editor.call_module(name, made.region, *made.inputs, before=before, like=like, val=val)
    set_kernels(call, made.sites)
    return call, [
        editor.call(
            operator.getitem, (call, index), before=before, like=node, val=node.meta.get("val")
        )
        for index, node in enumerate(made.outputs)
    ]


def _replace(editor: Editor, members: list[Node], made: Formed) -> dict[Node, Node]:
    """Call the region after its last node, and erase its nodes; return the new results."""
    inside = set(members)
    last = members[-1]
    call, results = call_region(editor, made, before=last.next)
    set_region(call, made.sites)
    for node, result in zip(made.outputs, results, strict=True):
        editor.replace_uses(node, result, lambda user: user not in inside)
    _move_readers(members[0], results)
    for node in reversed(members):
        editor.erase(node)
    return dict(zip(made.outputs, results, strict=True))


def _move_readers(first: Node, results: list[Node]) -> None:
    """Move readers of the results that stand before these behind them."""
    late: set[Node] = set(results)
    point, node = results[-1], first
    while node is not results[0]:
        following = node.next
        if any(each in late for each in node.all_input_nodes):
            late.add(node)
            point.append(node)
            point = node
        node = following

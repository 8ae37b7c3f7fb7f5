"""Keep Inductor from an add behind a linear's activation, on which its int8 patterns fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import annotation_of
from quantfx.patterns.schema import argument_value, resolve_op

_ADD = resolve_op("aten.add.Tensor")
_SUB = resolve_op("aten.sub.Tensor")
_TO = resolve_op("aten.to.dtype")
_NEG = resolve_op("aten.neg.default")


@dataclass(frozen=True)
class ShieldAdds(Pass):
    """``relu(linear(x)) + y -> relu(linear(x)) - (-y)``, the same float, for Inductor only.

    torch 2.13 first fuses the activation into the int8 linear and then takes the add for a second
    one to fuse, which ends in an AssertionError (``qlinear_post_op_fusion``). It has no pattern
    for a subtraction; the negation costs nothing in the loop that subtracts.
    """

    name: ClassVar[str] = "shield-adds"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite each add that reads the output of a linear with activation."""
        shielded = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node in graph_module.graph.find_nodes(op="call_function", target=_ADD):
                operands = argument_value(node, "self"), argument_value(node, "other")
                activated = [each for each in operands if _is_activated_linear(each)]
                nodes = [each for each in operands if isinstance(each, Node)]
                if activated and len(nodes) == 2 and argument_value(node, "alpha") == 1:
                    _shield(editor, node, activated[0])
                    shielded += 1
        return PassResult(shielded > 0, stats={"shielded": shielded})


def _is_activated_linear(value: object) -> bool:
    """Whether ``value`` ends a linear's match and is read once, as Inductor's pattern demands."""
    if not isinstance(value, Node) or len(value.users) != 1:
        return False
    annotation = annotation_of(value)
    return (
        annotation is not None
        and annotation.is_output
        and annotation.kind == "linear"
        and annotation.match != value.name
        and value.target is not _ADD
    )


def _shield(editor: Editor, node: Node, first: Node) -> None:
    operands = [argument_value(node, "self"), argument_value(node, "other")]
    operands.remove(first)
    other = operands[0]
    # Integers wrap and bools have no negative: the add would have made them float.
    if not other.meta["val"].is_floating_point():
        other = editor.call(_TO, (other, node.meta["val"].dtype), like=node, before=node)
    negated = editor.call(_NEG, (other,), like=node, before=node)
    difference = editor.call(_SUB, (first, negated), like=node, before=node)
    editor.replace(node, difference)

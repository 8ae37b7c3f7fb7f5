"""Pack each weight once instead of in every call, if no compiler does that."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.packed import Packed
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.lowered import carry_site
from quantfx.patterns.schema import is_operator_call, overload, resolve_op


class PackedWeight(Packed):
    """``op(weight, scales, ...)``, computed when it is first called.

    Args:
        op: Name of a prepack operator.
        literals: Its arguments after the tensors.
    """

    def __init__(self, op: str, literals: tuple[Any, ...]) -> None:
        super().__init__()
        self.op = op
        self.literals = literals

    def pack(self, *tensors: Any) -> Any:
        """Return the packed weight; ``tensors`` are the weight and the operator's other inputs."""
        return resolve_op(self.op)(*tensors, *self.literals)

    def extra_repr(self) -> str:
        """The operator."""
        return self.op


class KeepPacked(GraphPass):
    """``kernel(x, prepack(w)) -> kernel(x, PackedWeight(w))``, for running without a compiler."""

    name = "keep-packed"
    counts = "kept"
    requires = frozenset({"lowered"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Replace every packing of a constant by a module that caches the result."""
        kept = 0
        for node in list(editor.graph.nodes):
            if is_prepack(node) and all(n.op == "get_attr" for n in node.all_input_nodes):
                _keep(editor, node)
                kept += 1
        return kept


def is_prepack(node: Node) -> bool:
    """Whether ``node`` packs a weight for a kernel."""
    return is_operator_call(node) and "prepack" in str(node.target)


def _keep(editor: Editor, node: Node) -> None:
    tensors = [each for each in node.args if isinstance(each, Node)]
    literals = node.args[len(tensors) :]
    target = editor.free_name(f"{tensors[0].target}_packed".replace(".", "_"))
    packed = PackedWeight(str(overload(node)), tuple(literals))
    call = editor.call_module(target, packed, *tensors, after=node, like=node)
    carry_site(node, call)
    editor.replace(node, call)

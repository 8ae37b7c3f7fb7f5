"""Replace in-place operators by their functional forms where nothing else sees the write."""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.passes.graph.aliasing import views_of, writes_to
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class Functionalize(GraphPass):
    """``relu_(x) -> relu(x)``, with later readers of x reading the result.

    An operator stays in place when x is an input, parameter or buffer (the caller sees the write)
    or shares memory with another tensor of the graph.
    """

    name = "functionalize"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite each in-place operator in graph order, so that chains unfold."""
        count = 0
        for node in list(editor.graph.nodes):
            written = writes_to(node)
            if not written:
                continue
            reason = _obstacle(node, written)
            if reason is None:
                _rewrite(editor, node, written[0])
                count += 1
            else:
                message = f"stays in place: {reason}"
                editor.remark("missed", node.name, message, str(node.target))
        return count


def _functional(node: Node) -> OpOverload[..., object] | None:
    namespace, op, overload = str(node.target).split(".")
    packet = getattr(getattr(torch.ops, namespace), op.removesuffix("_"), None)
    found = getattr(packet, overload, None) if op.endswith("_") else None
    return found if isinstance(found, OpOverload) else None


def _obstacle(node: Node, written: list[Node]) -> str | None:
    """Return why the write cannot be made functional, None if it can."""
    target = written[0]
    if len(written) > 1 or node.args[:1] != (target,) or _functional(node) is None:
        return f"{node.target} has no functional form with the same arguments"
    if target.op != "call_function":
        return f"{target.name} is a {target.op} of the graph, whose owner sees the write"
    if views_of(target):
        return f"{target.name} is a view of {views_of(target)[0].name}"
    views = [user for user in target.users if user is not node and target in views_of(user)]
    if views:
        return f"{views[0].name} is a view of {target.name}"
    return None


def _rewrite(editor: Editor, node: Node, target: Node) -> None:
    functional = _functional(node)
    if functional is None:
        return
    new = editor.call(
        functional,
        node.args,
        kwargs=dict(node.kwargs),
        after=node,
        val=node.meta.get("val"),
        name=node.name.rstrip("_"),
    )
    for user in list(target.users):
        if user is not node and user is not new and node < user:
            user.replace_input_with(target, new)
    editor.replace(node, new)

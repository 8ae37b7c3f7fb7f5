"""Operators of ours written in torch's own, for code that runs where quantfx is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs

Write = Callable[..., Node]
"""Writes a call of an operator with arguments, and returns its node."""

_PLAIN: dict[OpOverload[..., Any], Callable[..., Node]] = {}


def define_plain(operator: OpOverload[..., Any], write: Callable[..., Node]) -> None:
    """Say what ``operator`` is: ``write(call, *args)`` writes it with ``call``, a ``Write``."""
    _PLAIN[operator] = write


def plain_operators(module: GraphModule) -> GraphModule:
    """Return ``module`` with torch's operators in place of those of ours that are defined by them.

    It is ``module`` itself if there are none, and else a copy.
    """
    if not any(_found(each) for _, each in all_graphs(module)):
        return module
    copy = clone(module)
    for path, each in all_graphs(copy):
        editor = Editor(each, "plain-operators", path)
        for node in _found(each):
            editor.replace(node, _PLAIN[node.target](partial(_call, editor, node), *node.args))
    recompile(copy)
    return copy


def _call(editor: Editor, before: Node, target: OpOverload[..., Any], *args: Any) -> Node:
    return editor.call(target, args, before=before)


def _found(module: GraphModule) -> list[Any]:
    """Return the nodes to replace; their target is an operator."""
    nodes = module.graph.nodes
    return [node for node in nodes if node.op == "call_function" and node.target in _PLAIN]

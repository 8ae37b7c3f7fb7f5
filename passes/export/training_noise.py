"""Noise that a model puts on a tensor in training only, such as stochastic depth."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.export.same_values import size_of, sizes_of
from quantfx.passes.graph.aliasing import writes_to
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import referent
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.layers.mode_node import MODE, mode_node

# Meta key on calls that only training makes; True on the last, which puts noise on a tensor.
NOISE_KEY = "quantfx_training_noise"
NAME = "training_noise"
_SIZE = torch.ops.aten.sym_size.int


class TrainingNoise(nn.Module):
    """Returns its input; in training, with the noise that the model puts on it.

    Args:
        noise: The graph from the input to its value in training.
    """

    def __init__(self, noise: GraphModule) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, tensor: Tensor, training: bool) -> Tensor:
        """Return ``tensor``, with noise if ``training``."""
        result: Tensor = self.noise(tensor) if training else tensor
        return result


def is_noise(node: Node) -> bool:
    """Whether ``node`` calls a `TrainingNoise`."""
    owner = node.graph.owning_module
    if node.op != "call_module" or not isinstance(owner, GraphModule):
        return False
    return isinstance(referent(owner, node), TrainingNoise)


def reads(node: Node) -> list[Node]:
    """Return the inputs whose values, not only their form, ``node`` depends on."""
    name = op_name(node)
    is_like = name.startswith("new_") or name.endswith("_like")
    return [] if is_like else node.all_input_nodes


def mark(node: Node, root: Node, alone: Container[Node]) -> str | None:
    """Mark ``node``, and the calls it is computed from, as noise on ``root``.

    Args:
        node: The value of ``root`` in training.
        root: The node in its place in evaluation.
        alone: All calls that only training makes.

    Returns:
        Why ``node`` is not noise; None if it is.
    """
    parts = _parts(node, alone)
    for part in parts:
        outside = [user for user in part.users if user not in parts]
        if outside and part is not node:
            return f"{part.name} ({part.target}) also feeds {outside[0].name}, not only {node.name}"
        for source in part.all_input_nodes:
            if source not in parts and source is not root and not _is_known(source, part, root):
                return f"{part.name} ({part.target}) needs {source.name}, not only {root.name}"
    for part in parts:
        part.meta[NOISE_KEY] = part is node
    return None


def wrap_noise(editor: Editor, node: Node) -> None:
    """Replace ``node`` and the calls it is computed from by one call of a `TrainingNoise`."""
    parts = _parts(node, _Marked())
    [root] = {s: None for p in parts for s in reads(p) if s not in parts and size_of(s) is None}
    graph = Graph()
    tensor = graph.placeholder("tensor")
    tensor.meta = dict(root.meta)
    copied = {root: tensor}

    def argument(source: Node) -> Node:
        if source not in copied:
            size = size_of(source)
            # A tensor that is read for its form only has the form of the root.
            copied[source] = (
                tensor if size is None else graph.call_function(_SIZE, (tensor, _dim(size, root)))
            )
        return copied[source]

    for part in parts:
        for source in part.all_input_nodes:
            argument(source)
        copied[part] = graph.node_copy(part, argument)
    graph.output(copied[node])
    noise = TrainingNoise(GraphModule(nn.Module(), graph))
    noise.train(editor.module.training)
    mode = mode_node(editor, MODE)
    val = node.meta.get("val")
    name = editor.free_name(NAME)
    call = editor.call_module(name, noise, root, mode, before=node, val=val)
    node.replace_all_uses_with(call)
    for part in reversed(parts):
        editor.erase(part)


class _Marked(Container[Node]):
    """The nodes that `mark` marked, up to the end of other noise."""

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and node.meta.get(NOISE_KEY) is False


def _parts(node: Node, alone: Container[Node]) -> list[Node]:
    """Return ``node`` and the nodes of ``alone`` that it depends on, in graph order."""
    found: dict[Node, None] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found[current] = None
        pending += [source for source in current.all_input_nodes if source in alone]
        pending += [user for user in current.users if user < node and current in writes_to(user)]
    return sorted(found)


def _is_known(source: Node, part: Node, root: Node) -> bool:
    """Whether ``part`` can read ``root`` in place of ``source``: for a size or a form."""
    size = size_of(source)
    if size is not None:
        return size in (sizes_of(root) or ())
    ours, theirs = source.meta.get("val"), root.meta.get("val")
    if source in reads(part) or not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
        return False
    same_sizes = sizes_of(source) == sizes_of(root) or op_name(part).startswith("new_")
    return same_sizes and (ours.dtype, ours.device) == (theirs.dtype, theirs.device)


def _dim(size: str, root: Node) -> int:
    return (sizes_of(root) or ()).index(size)

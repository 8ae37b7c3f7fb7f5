"""Find the pills of a drawing that share a colour because they share qparams."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch.fx import GraphModule, Node

from quantfx.passes.draw.fold import Folded, qparams
from quantfx.passes.graph.graphs import referent
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.annotation import GROUP_KEY
from quantfx.passes.quant.qdq import quantizes


def first_tensors(
    module: GraphModule, order: Sequence[Node], names: Mapping[Node, str], folded: Folded
) -> dict[Node, str]:
    """Return for every drawn q and observer the first tensor that has the same qparams.

    Groups are named after the tensor and not numbered, so that an insertion recolours nothing. If
    one tensor has several qparams, further groups are named after their first pill.
    """
    first: dict[Hashable, str] = {}
    taken: set[str] = set()
    result: dict[Node, str] = {}
    for node in order:
        if node in folded or not node.args or not isinstance(node.args[0], Node):
            continue
        tensor = names[node.args[0]]
        if is_observer(node):
            # The object itself: two targets may name one observer.
            key: Hashable = ("observer", id(referent(module, node)))
        elif quantizes(node):
            key = _sharing_key(node)
        else:
            continue
        if key not in first:
            first[key] = names[node] if tensor in taken else tensor
            taken.add(tensor)
        result[node] = first[key]
    return result


def _sharing_key(node: Node) -> Hashable:
    scale, zero_point, axis, _, _, dtype = qparams(node)
    if isinstance(scale, Node) and isinstance(zero_point, Node):
        return (_origin(scale), _origin(zero_point), axis, dtype)
    group = node.meta.get(GROUP_KEY)
    if isinstance(group, str):
        return (scale, zero_point, axis, dtype, group)
    return node


def _origin(node: Node) -> Hashable:
    return node.target if node.op == "get_attr" else node

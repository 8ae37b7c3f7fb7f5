"""Canonical order and display names of a graph, independent of node names and of node order.

Drawings and snapshots depend on both: a different numbering of nodes, a different export mode or an
edit elsewhere in the graph must not change the line of an unchanged node.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch.fx import Graph, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.scopes import module_scope, op_name
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.qdq import dequantizes, quantizes

# The exporter's runtime check of input shapes: a call without result or users, not part of the
# model.
_GUARDS = "_guards_fn"


def canonical_order(graph: Graph) -> list[Node]:
    """Return the live nodes, producers first, in post-order from the output.

    1. Arguments are walked in argument order, keyword arguments by name.
    2. Live nodes: first those that the output needs, then those with a side effect (``add_`` on a
       counter).
    3. Dead nodes and unused inputs are left out; the output comes last.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    outputs = list(graph.find_nodes(op="output"))
    seen.update(outputs)
    for output in outputs:
        for producer in _inputs(output):
            _walk(producer, order, seen)
    for node in _effects(graph, order, seen):
        _walk(node, order, seen)
    return order + outputs


def canonical_names(order: Sequence[Node]) -> dict[Node, str]:
    """Return unique display names for all nodes of a canonical order.

    1. An operator call: module path, ``/``, operator: ``layer.0.conv1/conv2d``; ``add`` at the top.
    2. Inputs, constants and module calls: their target.
    3. A node that stands for a tensor is named after the tensor: ``add:q``, ``add:dq``,
       ``add:observe``, ``split[1]``.
    4. The second node with a name gets ``#2``, and so on in canonical order.
    """
    names: dict[Node, str] = {}
    taken: set[str] = set()
    count: Counter[str] = Counter()
    for node in order:
        base = _base_name(node, names)
        count[base] += 1
        name = base if count[base] == 1 else f"{base}#{count[base]}"
        while name in taken:
            count[base] += 1
            name = f"{base}#{count[base]}"
        taken.add(name)
        names[node] = name
    return names


def _inputs(node: Node) -> list[Node]:
    if len(node.kwargs) < 2:
        return node.all_input_nodes
    ordered: dict[Node, None] = {}
    map_arg(node.args, lambda n: ordered.setdefault(n))
    for key in sorted(node.kwargs):
        map_arg(node.kwargs[key], lambda n: ordered.setdefault(n))
    return list(ordered)


def _walk(root: Node, order: list[Node], seen: set[Node]) -> None:
    """Append ``root`` after everything it needs; with an explicit stack, since graphs are deep."""
    if root in seen:
        return
    seen.add(root)
    stack: list[tuple[Node, Iterator[Node]]] = [(root, iter(_inputs(root)))]
    while stack:
        node, pending = stack[-1]
        for producer in pending:
            if producer not in seen:
                seen.add(producer)
                stack.append((producer, iter(_inputs(producer))))
                break
        else:
            stack.pop()
            order.append(node)


def _effects(graph: Graph, order: Iterable[Node], seen: set[Node]) -> list[Node]:
    """Return the unseen nodes with a side effect, ordered by effect and target."""
    found = [n for n in graph.nodes if n not in seen and _has_effect(n)]
    if len(found) < 2:
        return found
    digest = {node: f"#{index}" for index, node in enumerate(order)}
    for node in graph.nodes:
        if node not in digest:
            arguments = map_arg((node.args, node.kwargs), lambda n: digest[n])
            text = f"{node.op} {module_scope(node)} {op_name(node)} {arguments!r}"
            digest[node] = hashlib.sha256(text.encode()).hexdigest()
    return sorted(found, key=lambda n: (module_scope(n), op_name(n), digest[n]))


def _has_effect(node: Node) -> bool:
    if node.op not in ("call_function", "call_module", "call_method") or node.target == _GUARDS:
        return False
    return node.is_impure(impure_random=False)


def _base_name(node: Node, names: Mapping[Node, str]) -> str:
    if node.op == "output":
        return "output"
    if node.op in ("placeholder", "get_attr"):
        return str(node.target)
    producer = next((names[n] for n in node.args if isinstance(n, Node) and n in names), None)
    if producer is not None:
        if is_observer(node):
            return f"{producer}:observe"
        if quantizes(node):
            return f"{producer}:q"
        if dequantizes(node):
            return f"{producer.removesuffix(':q')}:dq"
        if op_name(node) == "getitem":
            return f"{producer}[{node.args[1]}]"
    if node.op == "call_module":
        return str(node.target)
    scope = module_scope(node)
    return f"{scope}/{op_name(node)}" if scope else op_name(node)

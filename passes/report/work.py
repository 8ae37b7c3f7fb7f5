"""The work of a module's operators: multiply-accumulates, and the weights they read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.graph.boundary import operands
from quantfx.passes.graph.graphs import Site, all_graphs, constants
from quantfx.passes.graph.operator_name import namespace
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.halves import UNPACK_HALVES
from quantfx.passes.quant.qdq import has_qparams, reads_quantized
from quantfx.passes.report.accounts import Account, accounts
from quantfx.passes.report.macs import macs_of

_FLOAT_BYTES = 4  # bytes of an element that a dequantize or a cast computes
_VERB = re.compile(r" (is|has|holds|takes|uses) ")


@dataclass(frozen=True)
class OperatorWork:
    """An operator that multiplies matrices or reads weights, or may do so.

    Attributes:
        site: The operator; the anchor of its match if it is planned.
        op: Its name, with its namespace.
        macs: Multiply-accumulates, with free sizes as in the example; None if unknown.
        weight_bytes: Bytes of the stored tensors that it reads, in float. A tensor with several
            readers counts once, for the first planned reader or else the first reader.
        planned: Whether a match holds it.
        reason: Why it is not planned, without names of nodes; empty if nothing mentions it.
    """

    site: Site
    op: str
    _: KW_ONLY
    macs: int | None
    weight_bytes: int
    planned: bool
    reason: str = ""


def work_of(module: GraphModule, recipe: Recipe) -> tuple[OperatorWork, ...]:
    """Return the operators with work in all graphs of ``module``, in graph order."""
    found = [a for a in accounts(module, recipe) if a.standing not in ("made", "bookkeeping")]
    weights = _weight_bytes(module)
    names = {
        path: {node.name for node in graph_module.graph.nodes}
        for path, graph_module in all_graphs(module)
    }
    rows = (_row(each, weights.get(each.node, 0), names[each.graph]) for each in found)
    return tuple(row for row in rows if row.macs != 0 or row.weight_bytes)


def _row(account: Account, weight_bytes: int, names: set[str]) -> OperatorWork:
    annotation = annotation_of(account.node)
    name = account.node.name if annotation is None else annotation.match
    return OperatorWork(
        Site(account.graph, name),
        account.op,
        macs=macs_of(account.node),
        weight_bytes=weight_bytes,
        planned=annotation is not None,
        reason=drop_names(account.reason, names),
    )


def drop_names(reason: str, names: Collection[str]) -> str:
    """Return a reason without the names of nodes, so that equal reasons are equal."""
    return re.sub(r"[\w.]+", lambda word: _drop_name(word, names), reason)


def _drop_name(word: re.Match[str], names: Collection[str]) -> str:
    """Replace the name of a node, with or without a slot."""
    node, _, slot = word[0].partition(".")
    if node not in names:
        return word[0]
    # "linear" may be a node or the word for all linears: the context decides.
    means_node = slot or re.search(r"_\d+$", node) or _VERB.match(word.string, word.end())
    return "…" if means_node else word[0]


def _weight_bytes(module: GraphModule) -> Mapping[Node, int]:
    """Return the bytes of stored tensors by the operator that reads them."""
    found: dict[Node, int] = {}
    seen: set[tuple[object, ...]] = set()
    readers = _Readers(module)
    for node, tensor in _find_stored(module):
        # Tensors that share memory count as one: tied weights, and weights shared by branches.
        memory = tensor.untyped_storage().data_ptr() or id(tensor)
        key = (memory, tensor.storage_offset(), *tensor.shape)
        reader = readers.of(node)
        if reader is not None and key not in seen:
            seen.add(key)
            size = tensor.element_size()
            if any(reads_quantized(user) for user in node.users):
                size = _FLOAT_BYTES
            elif _is_packed(node):
                size = 2 * _FLOAT_BYTES
            found[reader] = found.get(reader, 0) + tensor.numel() * size
    return found


def _find_stored(module: GraphModule) -> Iterator[tuple[Node, Tensor]]:
    """Yield the readers of float tensors, or of integers of quantized tensors; not of scales."""
    for _, graph_module in all_graphs(module):
        for node, tensor in constants(graph_module):
            if node.users and _is_weight(node, tensor):
                yield node, tensor


def _is_weight(node: Node, tensor: Tensor) -> bool:
    quantized = [user for user in node.users if has_qparams(user)]
    if any(user.args[0] is node for user in quantized) or _is_packed(node):
        return True
    return tensor.is_floating_point() and len(quantized) < len(node.users)


def _is_packed(node: Node) -> bool:
    return any(user.target is UNPACK_HALVES for user in node.users)


class _Readers:
    """Finds the operators that read stored tensors, through values computed from these only."""

    def __init__(self, module: GraphModule) -> None:
        self._inner: dict[Node, list[Node]] = {}
        for placeholder, (_, operand) in operands(module).items():
            self._inner.setdefault(operand, []).append(placeholder)
        self._constant: set[Node] = set()
        for _, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                inputs = node.all_input_nodes
                if node.op == "get_attr" or (inputs and self._constant.issuperset(inputs)):
                    self._constant.add(node)

    def of(self, node: Node) -> Node | None:
        """Return the first planned operator that reads ``node``, else the first of all."""
        found = list(self._all(node))
        planned = (reader for reader in found if annotation_of(reader) is not None)
        return next(planned, found[0] if found else None)

    def _all(self, start: Node) -> Iterator[Node]:
        pending, seen = [start], {start}
        while pending:
            node = pending.pop(0)
            inner = self._inner.get(node, [])
            for user in (*inner, *node.users):
                if user in seen or user.op == "output":
                    continue
                seen.add(user)
                if user in inner or (user in self._constant and annotation_of(user) is None):
                    pending.append(user)
                elif not (inner and namespace(user) == "higher_order"):  # the nested graph reads it
                    yield user

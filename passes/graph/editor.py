"""The single place where nodes are made.

FX gives a new node empty meta; module-name selectors, shape checks and drawings then fail far from
the cause. Every node made here has the meta of the node it stands for.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.errors import PassError
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import attribute, constant, is_stored
from quantfx.passes.graph.remark import AnyRemark, Kind, Remark

PROVENANCE_KEY = "quantfx_by"
# The meta key by which a node that lost its readers names the node that they read now.
STAND_IN_KEY = "quantfx_stand_in"
# The last key is PT2E's name for a group of operators that belong together.
_INHERITED = ("nn_module_stack", "stack_trace", "from_node", "torch_fn", "quantization_tag")


class Editor:
    """Edits one graph on behalf of one pass.

    Args:
        module: Owner of the graph.
        by: Name of the pass, recorded on every new node.
        path: Path of the graph, "" for the top one.

    Attributes:
        edits: Number of edits so far.
        made: Every node made, in order.
        remarks: Remarks about nodes of the graph.
    """

    def __init__(self, module: GraphModule, by: str, path: str = "") -> None:
        self.module = module
        self.graph = module.graph
        self.by = by
        self.path = path
        self.edits = 0
        self.made: list[Node] = []
        self._changed: dict[str, list[Node]] = {}
        self.remarks: list[AnyRemark] = []

    def remark(self, kind: Kind, node: str, message: str, op: str = "") -> None:
        """Keep a remark about the node called ``node``, which may have been removed already."""
        self.remarks.append(Remark(kind, self.path, node, message, op))

    def call(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        like: Node | None = None,
        after: Node | None = None,
        before: Node | None = None,
        kwargs: dict[str, Any] | None = None,
        val: object = None,
        name: str | None = None,
    ) -> Node:
        """Insert a call.

        Args:
            target: Operator overload.
            args: Positional arguments.
            like: Node whose scope and stack trace the new node inherits; by default the node that
                it is inserted at.
            after: Node to insert behind; or give ``before``.
            before: Node to insert in front of.
            kwargs: Keyword arguments.
            val: Fake value of the result; computed from the arguments' fake values by default.
            name: Preferred node name.
        """
        like = _stands_for(like, before, after)
        with self._at(after, before):
            node = self.graph.create_node("call_function", target, args, kwargs or {}, name)
        value = val if val is not None else _fake_result(node, like)
        return self._finish(node, like, value)

    def call_module(
        self,
        target: str,
        module: nn.Module,
        *args: Any,
        after: Node | None = None,
        before: Node | None = None,
        like: Node | None = None,
        val: object = None,
    ) -> Node:
        """Insert ``target(*args)``, storing ``module`` under ``target`` if it is new there.

        The new node inherits its meta from ``like``, by default the first argument, which must then
        be a node. Its fake value comes from ``like`` as well, unless ``val`` is given.

        Raises:
            PassError: something else is stored under that name.
        """
        if not hasattr(self.module, target):
            self.module.add_module(target, module)
        elif getattr(self.module, target) is not module:
            message = f"the module already has another '{target}'"
            raise PassError(message, rule="taken-name", site=target, fix="choose a free name")
        with self._at(after, before):
            node = self.graph.create_node("call_module", target, args, {}, target)
        source: Node = args[0] if like is None else like
        return self._finish(node, source, source.meta.get("val") if val is None else val)

    def constant(
        self, target: str, value: Tensor, *, before: Node, like: Node | None = None
    ) -> Node:
        """Store ``value`` as a buffer near ``target`` (a free name is found) and read it."""
        like = _stands_for(like, before)
        free = self.free_name(target)
        set_tensor(self.module, free, value)
        with self._at(None, before):
            node = self.graph.create_node("get_attr", free, (), {}, free.replace(".", "_"))
        return self._finish(node, like, self._fake(value, like))

    def shared_constant(self, target: str, value: Tensor, *, like: Node, before: Node) -> Node:
        """Read ``value`` from ``target`` if it is stored there already; else do as ``constant``."""
        stored = attribute(self.module, target) if is_stored(self.module, target) else None
        if not _is_equal(stored, value):
            return self.constant(target, value, like=like, before=before)
        with self._at(None, before):
            node = self.graph.create_node("get_attr", target, (), {}, target.replace(".", "_"))
        return self._finish(node, like, self._fake(value, like))

    def changed_constant(self, node: Node, value: Tensor, *, before: Node) -> Node:
        """Return a node that reads ``value`` in place of the get_attr ``node``.

        The stored tensor is replaced if ``node`` is its only reader and only ``before``, or
        nothing, reads ``node``. Otherwise ``value`` is stored under a new name. Equal values share
        one name, as for the calls of a layer that is called several times.
        """
        target = str(node.target)
        changed = self._changed.setdefault(target, [])
        for earlier in changed:
            if earlier < before and _is_equal(self.stored(earlier), value):
                return earlier
        readers = self.graph.find_nodes(op="get_attr", sort=False)
        alone = [n for n in readers if n.target == node.target] == [node]
        if not alone or list(node.users) not in ([], [before]):
            changed.append(self.constant(target, value, like=node, before=before))
            return changed[-1]
        set_tensor(self.module, target, value)
        self.edits += 1
        return node

    def stored(self, node: object) -> Tensor | None:
        """Return the constant that ``node`` reads; None for a computed value or for no node."""
        return constant(self.module, node)

    def free_name(self, target: str) -> str:
        """Return ``target``, with a number appended if the module stores something there."""
        free, count = target, 0
        while is_stored(self.module, free):
            count += 1
            free = f"{target}_{count}"
        return free

    def name_of(self, module: nn.Module, target: str) -> str:
        """Return the name under which ``module`` is stored, else a free name near ``target``."""
        names = (name for name, child in self.module.named_children() if child is module)
        return next(names, None) or self.free_name(target)

    def replace(self, node: Node, replacement: Node) -> None:
        """Let every user of ``node`` use ``replacement``, and erase ``node``."""
        self.replace_uses(node, replacement)
        self.erase(node)

    def replace_uses(
        self, node: Node, replacement: Node, where: Callable[[Node], bool] | None = None
    ) -> None:
        """Let the users of ``node`` use ``replacement``: all, or where ``where`` is true."""
        node.replace_all_uses_with(replacement, where or (lambda user: True))
        node.meta[STAND_IN_KEY] = replacement

    def erase(self, node: Node) -> None:
        """Remove a node that nothing uses."""
        self.graph.erase_node(node)
        self.edits += 1

    def erase_unused(self, *nodes: Node) -> None:
        """Remove each of ``nodes`` without users, then inputs that became unused; not constants."""
        pending = dict.fromkeys(nodes)
        while pending:
            node, _ = pending.popitem()
            if not node.users and node.op in ("call_function", "call_module"):
                pending |= dict.fromkeys(node.all_input_nodes)
                self.erase(node)

    def drop_unused_attributes(self) -> int:
        """Erase unused get_attr nodes and delete attributes without references; return how many."""
        for node in self.graph.find_nodes(op="get_attr"):
            if not node.users:
                self.erase(node)
        used = {str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")}
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        dead = [name for name, _ in tensors if used.isdisjoint(_prefixes(name))]
        for name in dead:
            owner, _, leaf = name.rpartition(".")
            delattr(self.module.get_submodule(owner), leaf)
        self.edits += len(dead)
        return len(dead)

    def _fake(self, value: Tensor, like: Node) -> object:
        mode = _fake_mode(like)
        return mode.from_tensor(value, static_shapes=True) if mode else value

    def _at(self, after: Node | None, before: Node | None) -> Any:
        if after is not None:
            return self.graph.inserting_after(after)
        return self.graph.inserting_before(before)

    def _finish(self, node: Node, like: Node, val: object) -> Node:
        self.edits += 1
        for key in _INHERITED:
            if key in like.meta:
                node.meta[key] = like.meta[key]
        if val is not None:
            node.meta["val"] = val
        node.meta[PROVENANCE_KEY] = self.by
        self.made.append(node)
        return node


def _stands_for(*nodes: Node | None) -> Node:
    """Return the first node that was given; a new node inherits its meta."""
    for node in nodes:
        if node is not None:
            return node
    fix = "give before= or after="
    raise PassError("a new node needs a place", rule="node-place", fix=fix)


def _is_equal(stored: object, value: Tensor) -> bool:
    if not isinstance(stored, Tensor) or stored.dtype != value.dtype:
        return False
    return torch.equal(stored, value)


def _prefixes(name: str) -> Iterator[str]:
    """Yield ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``: a node may refer to a whole module."""
    return itertools.accumulate(name.split("."), lambda path, leaf: f"{path}.{leaf}")


def _fake_mode(node: Node) -> Any:
    """Return the fake mode of a node's value, or of the first of several; None if it has none."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return getattr(first, "fake_mode", None)


def _fake_result(node: Node, like: Node) -> object:
    """Run the node's operator on its arguments' fake values; None if they have none."""
    missing = [n for n in node.all_input_nodes if "val" not in n.meta]
    if missing or not callable(node.target):
        return None
    args = map_arg(node.args, lambda n: n.meta["val"])
    kwargs = map_arg(node.kwargs, lambda n: n.meta["val"])
    # An operator without arguments returns a fake tensor only inside a fake mode.
    mode = None if node.all_input_nodes else _fake_mode(like)
    with torch.no_grad(), mode or contextlib.nullcontext():
        return node.target(*args, **kwargs)

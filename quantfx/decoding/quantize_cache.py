"""Let a graph of a decoder take and return its cache in int8."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from quantfx.decoding.cache_operators import GROW, READ, to_int8, write_integers
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.remark import ModelRemark
from quantfx.passes.inputs.contract import contract_of, set_contract
from quantfx.passes.inputs.leaves import leaves_in, map_leaves
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import resolve_op

_TO = resolve_op("aten.to.dtype")
_SLICE = resolve_op("aten.slice.Tensor")
_CAT = resolve_op("aten.cat.default")
_SIZES = resolve_op("aten.sym_size.int")


@dataclass(frozen=True)
class CacheLeaf:
    """A tensor of a cache that is kept in int8.

    Attributes:
        axis: The dimension that grows by one a token.
        rows: The size of its dimension of rows, or 1 if it has none.
        shape: Its shape in the example.
        dtype: Its dtype in the float model.
        scale: float32, which broadcasts to the tensor: one for each position of all dimensions but
            ``axis`` and that of the rows.
    """

    axis: int
    rows: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    scale: Tensor = field(repr=False, compare=False)

    @property
    def values(self) -> int:
        """How many values a token of one row adds."""
        return prod(self.shape) // (self.shape[self.axis] * self.rows)


@dataclass(frozen=True)
class QuantizeCache(Pass):
    """The cache enters as ``q``, is read as ``q * scale``, and leaves as ``cat(q, new / scale)``.

    Old values leave as they came, to the bit. A new value beyond its range saturates.

    Attributes:
        leaves: For each leaf of the cache, how it is quantized; None if it stays as it is.
        seen: How many values each scale was found from.
        longest: The longest context among them, in tokens.
    """

    name = "quantize-cache"
    keeps_float = False

    leaves: tuple[CacheLeaf | None, ...]
    seen: int
    longest: int

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite inputs, if the graph takes a cache, and outputs."""
        editor = Editor(module, self.name)
        given = module.graph.find_nodes(op="placeholder")
        pasts: list[Node | None] = [None] * len(self.leaves)
        if len(given) > len(self.leaves):  # not the graph for prompts, which takes tokens alone
            pasts = list(given[-len(self.leaves) :])
            _take_int8(module, self.leaves)
        [output] = module.graph.find_nodes(op="output")
        for number, (leaf, past) in enumerate(zip(self.leaves, pasts, strict=True)):
            if leaf is None:
                continue
            results: Any = output.args[0]
            made: list[Any] = list(results)
            place = number - len(self.leaves)
            name = f"cache_{number}_scale"
            if past is None:
                made[place] = _quantize(editor, made[place], leaf, name)
            else:
                made[place] = _grow(editor, made[place], past, leaf, name)
                _read(editor, past, leaf, name)
            output.args = (tuple(made),)
        for node in editor.made:
            if node.op == "call_function":
                editor.remark(
                    "applied", node.name, "it reads or writes the int8 cache", operator_name(node)
                )
        count = sum(leaf is not None for leaf in self.leaves)
        return PassResult((*editor.remarks, ModelRemark(self.text)), {"int8": count})

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments of the float graph with the cache, the last of them, in int8."""
        if len(leaves_in(args)) <= len(self.leaves):
            return args
        leaves = iter(self.leaves)
        *others, cache = args
        return (*others, map_leaves(lambda value: _in_int8(value, next(leaves)), cache))

    @property
    def text(self) -> str:
        """What the report says."""
        made = [leaf for leaf in self.leaves if leaf is not None]
        values = sum(leaf.values for leaf in made)
        before = sum(leaf.values * leaf.dtype.itemsize for leaf in made)
        kept = len(self.leaves) - len(made)
        other = f"; {kept} that do not grow, or hold no floats, stay as they are" if kept else ""
        return (
            f"the cache is int8 in {len(made)} tensors, which take {values} bytes a token and row "
            f"where the model's take {before}; each scale is from {self.seen} values, "
            f"in contexts of up to {self.longest} tokens{other}"
        )


def _in_int8(value: Any, leaf: CacheLeaf | None) -> Any:
    return value if leaf is None else to_int8(value, leaf.scale)


def _quantize(editor: Editor, result: Node, leaf: CacheLeaf, name: str) -> Node:
    """Write behind ``result``, of the graph for prompts, its integers."""
    before = result.next
    scale = editor.shared_constant(name, leaf.scale, like=result, before=before)

    def call(target: OpOverload[..., Any], *args: Any) -> Node:
        return editor.call(target, args, before=before, like=result)

    return write_integers(call, result, scale)


def _grow(editor: Editor, result: Node, past: Node, leaf: CacheLeaf, name: str) -> Node:
    """Write the integers of ``result``: those of ``past``, and one new place."""
    before = result.next
    new = _appended(result, past, leaf)
    if new is None:
        new = editor.call(_SLICE, (result, leaf.axis, -1, sys.maxsize), before=before, like=result)
    new = _cast(editor, new, leaf, torch.float32, before)
    scale = editor.shared_constant(name, leaf.scale, like=result, before=before)
    value: Tensor = past.meta["val"]
    grown = value.to(torch.int8).new_empty(result.meta["val"].shape)
    args = (past, new, scale, leaf.axis)
    return editor.call(GROW, args, before=before, like=result, val=grown, name=f"{past.name}_grown")


def _read(editor: Editor, past: Node, leaf: CacheLeaf, name: str) -> None:
    """Let what reads ``past`` read it in floats, written where it is first read.

    A reader that puts new values behind it is replaced: the copy is then made once.
    """
    value: Tensor = past.meta["val"]
    past.meta["val"] = value.to(torch.int8)
    past.meta.pop("tensor_meta", None)
    others = [n for n in past.users if n.target not in (_SIZES, GROW) and n.op != "output"]
    for reader in list(others):
        new = _appended(reader, past, leaf)
        if new is None:
            continue
        new = _cast(editor, new, leaf, torch.float32, reader)
        read = _read_before(editor, reader, past, new, leaf, name)
        editor.replace(reader, read)
        others.remove(reader)
    if others:
        read = _read_before(editor, min(others), past, None, leaf, name)
        for reader in others:
            reader.replace_input_with(past, read)


def _read_before(
    editor: Editor, before: Node, past: Node, new: Node | None, leaf: CacheLeaf, name: str
) -> Node:
    scale = editor.shared_constant(name, leaf.scale, like=before, before=before)
    args = (past, new, scale, leaf.axis)
    read = editor.call(READ, args, before=before, name=f"{past.name}_read")
    return _cast(editor, read, leaf, leaf.dtype, before)


def _cast(editor: Editor, node: Node, leaf: CacheLeaf, dtype: torch.dtype, before: Node) -> Node:
    """Return ``node`` in ``dtype``; the operators of int8 caches take and return float32."""
    if leaf.dtype == torch.float32:
        return node
    return editor.call(_TO, (node, dtype), before=before)


def _appended(node: Node, past: Node, leaf: CacheLeaf) -> Node | None:
    """Return what ``node`` puts behind ``past``; None if it does something else."""
    if node.target is not _CAT or node.kwargs:
        return None
    args: tuple[Any, ...] = (*node.args, 0)
    parts, axis = args[:2]
    if len(parts) != 2 or parts[0] is not past or axis % len(leaf.shape) != leaf.axis:
        return None
    new: Node = parts[1]
    return new if new is not past and new.meta["val"].dtype == leaf.dtype else None


def _take_int8(module: GraphModule, leaves: tuple[CacheLeaf | None, ...]) -> None:
    """Let the input contract ask for int8 in the last inputs, which are the cache."""
    contract = contract_of(module)
    if contract is None:
        return
    start = len(contract.forms) - len(leaves)
    forms = (
        *contract.forms[:start],
        *(
            form if leaf is None else replace(form, dtype=torch.int8)
            for form, leaf in zip(contract.forms[start:], leaves, strict=True)
        ),
    )
    set_contract(module, replace(contract, forms=forms))

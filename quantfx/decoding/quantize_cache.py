"""Let a graph of a decoder take and return its cache in int8."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.remark import ModelRemark
from quantfx.passes.inputs.contract import contract_of, set_contract
from quantfx.passes.inputs.leaves import leaves_in, map_leaves
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import resolve_op

_TO = resolve_op("aten.to.dtype")
_MUL = resolve_op("aten.mul.Tensor")
_DIV = resolve_op("aten.div.Tensor")
_ROUND = resolve_op("aten.round.default")
_CLAMP = resolve_op("aten.clamp.default")
_SLICE = resolve_op("aten.slice.Tensor")
_CAT = resolve_op("aten.cat.default")
_SIZES = resolve_op("aten.sym_size.int")

LARGEST = 127  # symmetric: -128 is not used


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
    """The cache enters as ``q``, is read as ``q * scale``, and leaves as ``cat(q, quantize(new))``.

    Old values leave as they came, to the bit. A new value beyond its range saturates.

    Attributes:
        leaves: For each leaf of the cache, how it is quantized; None if it stays as it is.
        seen: How many values each scale was found from.
    """

    name: ClassVar[str] = "quantize-cache"
    keeps_float: ClassVar[bool] = False

    leaves: tuple[CacheLeaf | None, ...]
    seen: int

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite inputs, if the graph takes a cache, and outputs."""
        editor = Editor(module, self.name)
        given = module.graph.find_nodes(op="placeholder")
        pasts: list[Node | None] = [None] * len(self.leaves)
        if len(given) > len(self.leaves):  # not the graph for prompts, which takes tokens alone
            pasts = list(given[-len(self.leaves) :])
            _take_int8(module, self.leaves)
        pairs = list(zip(self.leaves, pasts, strict=True))
        for number, (leaf, past) in enumerate(pairs):
            if leaf is not None and past is not None:
                _dequantize(editor, past, leaf, f"cache_{number}_scale")
        _quantize_results(editor, pairs)
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
            f"where the model's take {before}; each scale is from {self.seen} values{other}"
        )


def _in_int8(value: Any, leaf: CacheLeaf | None) -> Any:
    if leaf is None:
        return value
    return (value / leaf.scale).round().clamp(-LARGEST, LARGEST).to(torch.int8)


def _dequantize(editor: Editor, past: Node, leaf: CacheLeaf, name: str) -> None:
    """Let what reads ``past`` read it times its scale; written where it is first read."""
    readers = [n for n in past.users if n.target is not _SIZES and n.op != "output"]
    value: Tensor = past.meta["val"]
    past.meta["val"] = value.to(torch.int8)
    past.meta.pop("tensor_meta", None)
    if not readers:
        return
    first = min(readers)
    scale = editor.shared_constant(name, leaf.scale, like=first, before=first)
    cast = editor.call(_TO, (past, torch.float32), before=first, like=first)
    read = editor.call(_MUL, (cast, scale), before=first, name=f"{past.name}_read")
    if leaf.dtype != torch.float32:
        read = editor.call(_TO, (read, leaf.dtype), before=first)
    for reader in readers:
        reader.replace_input_with(past, read)


def _quantize_results(editor: Editor, pairs: list[tuple[CacheLeaf | None, Node | None]]) -> None:
    """Return int8 in place of the last results of the graph, which are the cache."""
    [output] = editor.graph.find_nodes(op="output")
    [results] = output.args
    made = list(results)
    start = len(made) - len(pairs)
    for number, (leaf, past) in enumerate(pairs):
        if leaf is not None:
            result: Node = made[start + number]
            made[start + number] = _quantize(editor, result, leaf, past, f"cache_{number}_scale")
    output.args = (tuple(made),)


def _quantize(editor: Editor, result: Node, leaf: CacheLeaf, past: Node | None, name: str) -> Node:
    """Write behind ``result`` its integers; of a ``past`` that it begins with, these themselves."""
    before = result.next
    new = result
    if past is not None:
        new = editor.call(_SLICE, (result, leaf.axis, -1, sys.maxsize), before=before, like=result)
    scale = editor.shared_constant(name, leaf.scale, like=result, before=before)
    steps = editor.call(_DIV, (new, scale), before=before, like=result)
    whole = editor.call(_ROUND, (steps,), before=before, like=result)
    held = editor.call(_CLAMP, (whole, -LARGEST, LARGEST), before=before, like=result)
    made = editor.call(_TO, (held, torch.int8), before=before, like=result)
    if past is not None:
        made = editor.call(_CAT, ([past, made], leaf.axis), before=before, like=result)
    return made


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

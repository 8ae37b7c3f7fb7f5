"""The kernel family ``native-embedding``: tables of 8-bit or 4-bit rows.

``embedding(w, indices) -> quantized.embedding_byte(packed(w), indices)``. Each row has its own
scale and float offset, which q/dq operators cannot express: the q/dq graph has the float table.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.onednn.in_rows_of import in_rows_of
from quantfx.backends.quantized.family import NativeFamily, write_packed
from quantfx.backends.quantized.quantized_tensors import rows
from quantfx.passes.errors import SpecError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.packed import Packed
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, argument_node
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.patterns.schema import argument_value, resolve_op

_PREPACK = resolve_op("quantized.embedding_bag_prepack.default")
_RESHAPE = resolve_op("aten.reshape.default")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")
_SLICE = resolve_op("aten.slice.Tensor")
_CONTIGUOUS = resolve_op("aten.contiguous.default")
_BAG = "quantized.embedding_bag"
_MOST_DIMENSIONS = 2  # dtypes of indices that the kernels take


class PackedEmbedding(Packed):
    """A float table, quantized by row and packed.

    Args:
        spec: uint8 in 0..255 or 0..15, affine, by row; the offsets are not rounded.
    """

    def __init__(self, spec: Concrete) -> None:
        super().__init__()
        if not isinstance(spec, QuantSpec):
            message = f"'{spec}': rows of embeddings are stored as integers"
            raise SpecError(message, rule="integer-rows", site=str(spec))
        self.bits = 8 if spec.quant_max == 255 else 4
        self.eps = spec.eps

    def pack(self, *tensors: Any) -> Any:
        """Return the packed table."""
        (weight,) = tensors
        if self.bits == 4 and weight.shape[1] % 2:  # a byte holds two numbers, both of one row
            weight = torch.cat([weight, weight[:, -1:]], 1)
        scales, offsets = row_qparams(weight, self.bits, self.eps)
        return _PREPACK(rows(weight, scales, offsets, self.bits))

    def extra_repr(self) -> str:
        """The number of bits of an entry."""
        return f"{self.bits} bits"


def row_qparams(weight: Tensor, bits: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return scale and offset of each row: ``q = round(w / scale + offset)``.

    ``scale = (max - min) / (2^bits - 1)``, 1 where that is not above ``eps``; ``offset = -min /
    scale``, not rounded, so that the smallest value of a row is exact. FX graph mode's observer of
    float qparams computes the same with a larger ``eps``.
    """
    low, high = torch.aminmax(weight.detach(), dim=1)
    scales = (high - low) / (2**bits - 1)
    scales = torch.where(scales > eps, scales, torch.ones_like(scales))
    return scales, -low / scales


@dataclass(frozen=True)
class NativeEmbedding(NativeFamily):
    """torch's embeddings with packed rows."""

    name = "native-embedding"
    kernels = frozenset(
        {f"quantized.embedding{bag}_{size}" for bag in ("", "_bag") for size in ("byte", "4bit")}
    )

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return what the kernels do not support."""
        node, spec = candidate.anchor, candidate.packs["w"]
        largest = 15 if candidate.kernel.endswith("4bit") else 255
        if not isinstance(spec, QuantSpec) or (spec.quant_min, spec.quant_max) != (0, largest):
            return f"its rows are to be '{spec}', and the kernel stores them in 0..{largest}"
        indices = argument_node(node, "indices").meta.get("val")
        if not isinstance(indices, Tensor) or indices.dtype not in (torch.int32, torch.int64):
            return f"the indices of {node.name} are not int32 or int64"
        if candidate.kernel.startswith(_BAG):
            return _bag_reason(node)
        return None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the packing, which runs once, and the kernel call."""
        node, weight = candidate.anchor, argument_node(candidate.anchor, "weight")
        table = PackedEmbedding(candidate.packs["w"])
        packed = write_packed(editor, table, weight, before=node)
        kernel = resolve_op(f"{candidate.kernel}.default")
        if candidate.kernel.startswith(_BAG):
            call = _bag(editor, node, kernel, packed)
        else:
            call = _lookup(editor, node, kernel, packed)
        return Emission(call, node, candidate.kernel)


def _lookup(editor: Editor, node: Node, kernel: Any, packed: Node) -> Node:
    val = node.meta["val"]
    indices = _contiguous(editor, argument_node(node, "indices"), node)
    shape = list(indices.meta["val"].shape)
    if 1 <= len(shape) <= _MOST_DIMENSIONS:
        found = editor.call(kernel, (packed, indices), before=node, val=val)
        return _drop_added_column(editor, found, node)
    flat = editor.call(_RESHAPE, (indices, [-1]), before=node)
    flat_val = val.reshape(-1, val.shape[-1])
    found = editor.call(kernel, (packed, flat), before=node, val=flat_val)
    found = _drop_added_column(editor, found, node)
    single = editor.call(_UNSQUEEZE, (indices, -1), before=node)
    return in_rows_of(single, found, width=val.shape[-1], editor=editor, before=node)


def _contiguous(editor: Editor, value: Any, node: Node) -> Any:
    """Return a contiguous input: the kernels need it, and do not check it for weights.

    A call may have another layout than the example.
    """
    if not isinstance(value, Node):
        return value
    return editor.call(_CONTIGUOUS, (value,), like=value, before=node)


def _drop_added_column(editor: Editor, found: Node, node: Node) -> Node:
    """Remove the column that was added to a table of odd width."""
    val = found.meta["val"]
    if val.shape[-1] % 2 == 0 or "4bit" not in str(found.target):
        return found
    args = (found, -1, 0, val.shape[-1])
    return editor.call(_SLICE, args, before=node, val=val)


def _bag(editor: Editor, node: Node, kernel: Any, packed: Node) -> Node:
    """Write the kernel, which yields only the sums, and connect their readers."""
    sums = node.meta["val"][0]
    names = ("indices", "offsets", "per_sample_weights")
    *arguments, weights = (_contiguous(editor, argument_value(node, n), node) for n in names)
    include = argument_value(node, "include_last_offset")
    args = (packed, *arguments, False, 0, False, weights, None, include)
    call = editor.call(kernel, args, before=node, val=sums)
    call = _drop_added_column(editor, call, node)
    for user in list(node.users):
        editor.replace(user, call)
    return call


def _bag_reason(node: Node) -> str | None:
    if argument_value(node, "padding_idx") not in (None, -1):
        return f"{node.name} leaves out a padding index, and the kernel does not"
    for user in node.users:
        if user.target is not operator.getitem or user.args[1] != 0:
            return f"{user.name} reads more of {node.name} than its sums"
    return None

"""The operators ``quantfx::read_cache`` and ``quantfx::grow_cache``, on a past in int8.

Inductor does not look into them: its code for int8 on AVX2 moves eight bytes at a time, and takes
five to thirty times as long as torch's own loops for the same copies. Where quantfx is not, in
libraries and ONNX models, they are torch's operators all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.own_operators import define
from quantfx.passes.graph.plain_operators import Write, define_plain
from quantfx.patterns.schema import resolve_op

LARGEST = 127  # symmetric: -128 is not used
_TO = resolve_op("aten.to.dtype")
_MUL = resolve_op("aten.mul.Tensor")
_DIV = resolve_op("aten.div.Tensor")
_ROUND = resolve_op("aten.round.default")
_CLAMP = resolve_op("aten.clamp.default")
_CAT = resolve_op("aten.cat.default")


def to_int8(values: Tensor, scale: Tensor) -> Tensor:
    """Return ``values`` in steps of ``scale``, rounded and saturated."""
    return (values / scale).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)


def _read(past: Tensor, new: Tensor | None, scale: Tensor, axis: int) -> Tensor:
    """Return ``cat(past * scale, new)`` in float32, contiguous."""
    made = past.new_empty(_shape(past, new, axis), dtype=torch.float32)
    size = past.shape[axis]
    made.narrow(axis, 0, size).copy_(past).mul_(scale)
    if new is not None:
        made.narrow(axis, size, new.shape[axis]).copy_(new)
    return made


def _grow(past: Tensor, new: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return ``cat(past, new / scale)`` in int8, contiguous."""
    made = past.new_empty(_shape(past, new, axis))
    size = past.shape[axis]
    made.narrow(axis, 0, size).copy_(past)
    made.narrow(axis, size, new.shape[axis]).copy_(to_int8(new, scale))
    return made


def _shape(past: Tensor, new: Tensor | None, axis: int) -> list[int]:
    shape = list(past.shape)
    if new is not None:
        shape[axis] += new.shape[axis]
    return shape


def _fake_read(past: Tensor, new: Tensor | None, scale: Tensor, axis: int) -> Tensor:
    return past.new_empty(_shape(past, new, axis), dtype=torch.float32)


def _fake_grow(past: Tensor, new: Tensor, scale: Tensor, axis: int) -> Tensor:
    return past.new_empty(_shape(past, new, axis))


READ = define(
    "read_cache(Tensor past, Tensor? new, Tensor scale, int axis) -> Tensor",
    _read,
    _fake_read,
    key="CompositeExplicitAutograd",
)
GROW = define(
    "grow_cache(Tensor past, Tensor new, Tensor scale, int axis) -> Tensor",
    _grow,
    _fake_grow,
    key="CompositeExplicitAutograd",
)


def write_integers(call: Write, values: Node, scale: Node) -> Node:
    """Write ``to_int8`` with torch's operators."""
    held = call(_CLAMP, call(_ROUND, call(_DIV, values, scale)), -LARGEST, LARGEST)
    return call(_TO, held, torch.int8)


def _write_read(call: Write, past: Node, new: Node | None, scale: Node, axis: int) -> Node:
    read = call(_MUL, call(_TO, past, torch.float32), scale)
    return read if new is None else call(_CAT, [read, new], axis)


def _write_grow(call: Write, past: Node, new: Node, scale: Node, axis: int) -> Node:
    return call(_CAT, [past, write_integers(call, new, scale)], axis)


define_plain(READ, _write_read)
define_plain(GROW, _write_grow)

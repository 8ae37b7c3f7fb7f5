"""Two 4-bit integers in a byte, and the operator ``quantfx::unpack_halves`` that reads them.

In a row of c columns, byte k holds column k in its lower half and column k + (c + 1) / 2 in its
upper half, each plus 8. So a compiler reads each side of a row in one loop. With an odd width, the
last upper half is unused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.graph.own_operators import define
from quantfx.passes.quant.nibbles import LOW


def pack_halves(values: Tensor) -> Tensor:
    """Return ``(rows, columns)`` of integers in -8..7 as bytes ``(rows, (columns + 1) / 2)``."""
    halves = (values - LOW).to(torch.uint8)
    if halves.shape[-1] % 2:
        halves = torch.nn.functional.pad(halves, (0, 1))
    lower, upper = halves.chunk(2, -1)
    return lower | (upper << 4)


def unpack_halves(packed: Tensor, columns: int) -> Tensor:
    """Return bytes ``(..., (columns + 1) / 2)`` as int8 ``(..., columns)`` in -8..7."""
    halves = torch.cat((packed & 15, packed >> 4), -1)
    return halves[..., :columns].to(torch.int8) + LOW


# Compilers see through it, since it is composed of torch's own operators.
UNPACK_HALVES = define(
    "unpack_halves(Tensor packed, SymInt columns) -> Tensor",
    unpack_halves,
    key="CompositeImplicitAutograd",
)

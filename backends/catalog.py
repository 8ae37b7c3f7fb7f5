"""Every pass of a backend alone, by which pipelines are parsed from text."""

from __future__ import annotations

from quantfx.backends.inductor.declare_layouts import DeclareLayouts
from quantfx.backends.inductor.drop_pool_copies import DropPoolCopies
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.inductor.opaque_kernels import HideKernels, RevealKernels
from quantfx.backends.inductor.whole_rows import WholeRows
from quantfx.backends.quantized.carry_qparams import CarryQParams
from quantfx.passes.pipeline.base import Pass

PASSES: tuple[type[Pass], ...] = (
    CarryQParams,
    HideKernels,
    RevealKernels,
    DropPoolCopies,
    WholeRows,
    FuseSums,
    DeclareLayouts,
)

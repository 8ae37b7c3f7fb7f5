"""The passes of single backends, by which pipelines are parsed from text."""

from __future__ import annotations

from quantfx.passes.pipeline.base import Pass

NAMES = (
    "carry-qparams",
    "form-regions",
    "call-operator",
    "hide-kernels",
    "reveal-kernels",
    "drop-pool-copies",
    "whole-rows",
    "fuse-sums",
    "declare-layouts",
)


def passes() -> tuple[type[Pass], ...]:
    """Import and return the passes in the order of their names; some need Inductor."""
    from quantfx.backends.direct.call_operator import CallOperator
    from quantfx.backends.direct.form_regions import FormRegions
    from quantfx.backends.inductor.declare_layouts import DeclareLayouts
    from quantfx.backends.inductor.drop_pool_copies import DropPoolCopies
    from quantfx.backends.inductor.fuse_sums import FuseSums
    from quantfx.backends.inductor.opaque_kernels import HideKernels, RevealKernels
    from quantfx.backends.inductor.whole_rows import WholeRows
    from quantfx.backends.quantized.carry_qparams import CarryQParams

    return (
        CarryQParams,
        FormRegions,
        CallOperator,
        HideKernels,
        RevealKernels,
        DropPoolCopies,
        WholeRows,
        FuseSums,
        DeclareLayouts,
    )

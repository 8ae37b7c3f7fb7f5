"""Intel GPUs: x86 without what a GPU lacks, with signed activations; static quantization only.

It has never run on a GPU: its graphs are only checked as graphs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from quantfx.backends.backend import Backend
from quantfx.backends.checks.targets import Target
from quantfx.backends.lookup.family import Lookup
from quantfx.backends.onednn.family import OneDNN
from quantfx.backends.onednn.int8_layout import Int8Layout
from quantfx.backends.x86 import pattern_set, x86
from quantfx.passes.quant.spec import ObserverName, QuantSpec
from quantfx.patterns.errors import QuantfxError, unknown_name
from quantfx.patterns.loader import load

# No int8 max pooling, and no training.
OMITTED = (
    "lift-dropout",
    "annotate-conv-bn",
    "fuse-qat-conv-bn",
    "annotate-max-pool",
    "place-dropout",
)

NOT_HERE = (
    "graphs of backend 'xpu' are not for the int8 kernels of this machine's CPU. Run "
    "result.quantized, the same arithmetic in float, or quantize with backend='x86'"
)
_KERNELS = ("onednn", "direct")
ONEDNN = (OneDNN(convolves=(torch.int8, torch.uint8), not_here=NOT_HERE), Int8Layout(), Lookup())


def xpu(
    target: Target | None = None,
    *,
    symmetric: bool = False,
    observer: ObserverName = "mse",
    repair: bool | None = None,
    kernels: Literal["onednn", "direct"] = "onednn",
) -> Backend:
    """Return the xpu backend: s8 activations, s8 per-channel symmetric weights.

    Args:
        target: The CPU that runs ``kernels="direct"``; if its sums saturate, weights get
            pair-bounded scales. It has no effect on a GPU.
        symmetric: Fix the zero point of activations at 0; affine by default.
        observer: Observer of activations.
        repair: As for ``x86``.
        kernels: ``direct`` runs the same graphs on this machine's CPU, as prepared plans, to check
            their numbers; ``onednn`` are a GPU's kernels, which cannot run here.

    Raises:
        QuantfxError: ``kernels`` is none of these, or is ``direct``, which is not available here.
    """
    if kernels not in _KERNELS:
        raise unknown_name(QuantfxError, "kernels", kernels, _KERNELS)
    activation = QuantSpec(torch.int8, -128, 127, symmetric=symmetric, observer=observer)
    patterns = pattern_set().of_mode("static").without("max_pool2d") | load("embeddings")
    runs_here = kernels == "direct"
    cpu = target if runs_here else None
    base = x86(cpu, patterns=patterns, repair=repair, kernels=kernels)
    return replace(
        base.with_specs(act=activation).renamed("xpu"),
        prepare_pipeline=base.prepare_pipeline.without(*OMITTED),
        kernels=base.kernels if runs_here else ONEDNN,
        policy=f"s8 activations, {base.policy}" if runs_here else "s8 activations",
        unverified="no XPU",
        qat=None,
    )

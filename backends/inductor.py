"""Compile a q/dq graph with Inductor, whose own patterns turn it into oneDNN kernels.

Inductor only lowers q/dq where ``freezing`` is on while it traces and compiles, and gradients are
off; otherwise it silently runs float. Both are set here, for our own calls only. Everything of
Inductor without a public name (its config switch and its counters, torch 2.13) is used in this
module and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo.utils
import torch._inductor.config
from torch.fx import GraphModule

from quantfx.passes.report import OpRow
from quantfx.passes.state import preserved_state

# Counter of Inductor's pattern matcher -> the kernel it counts, and what kind of operator that is.
_COUNTERS = {
    "qconv_unary_lower_count": ("qconv_pointwise", "conv"),
    "qconv2d_binary_lower_count": ("qconv2d_pointwise.binary", "conv"),
    "qlinear_unary_lower_count": ("qlinear_pointwise", "linear"),
    "qlinear_binary_lower_count": ("qlinear_pointwise.binary", "linear"),
    "qmaxpool2d_matcher_count": ("int8 max_pool2d", "max_pool2d"),
    "qcat_matcher_count": ("int8 cat", "cat"),
    "qreshape_matcher_count": ("int8 reshape", "flatten"),
}
_KIND_OF_KERNEL = dict(_COUNTERS.values())


class CompiledModule:
    """A graph module compiled by Inductor; call it like the module.

    Every call runs without gradients and with freezing on, because a new input shape may compile
    again. The switches are thread-local and restored after the call.
    """

    def __init__(self, module: GraphModule) -> None:
        self._run = torch.compile(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled module; the first call of a shape compiles."""
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            return self._run(*args, **kwargs)


def compile_module(
    module: GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[CompiledModule, dict[str, int]]:
    """Compile ``module`` for the given inputs.

    Returns:
        The compiled module, and the kernels that Inductor's patterns reached: name -> sites.
    """
    compiled = CompiledModule(module)
    before = _counts()
    with preserved_state(module):
        compiled(*args, **kwargs)
    after = _counts()
    reached = {
        kernel: after[counter] - before[counter]
        for counter, (kernel, _) in _COUNTERS.items()
        if after[counter] > before[counter]
    }
    return compiled, reached


def _counts() -> dict[str, int]:
    counters = torch._dynamo.utils.counters["inductor"]
    return {name: int(counters[name]) for name in _COUNTERS}


def lowered_rows(
    rows: tuple[OpRow, ...], reached: Mapping[str, int], repeated: Mapping[str, int]
) -> tuple[OpRow, ...]:
    """Return ``rows`` with what was lowered, according to the kernels that were reached.

    Args:
        rows: Before lowering.
        reached: Kernel -> sites, from ``compile_module``.
        repeated: Kind -> sites that compute what another site does, which Inductor merges.

    Inductor counts by family (1d, 2d and 3d convolutions together). A family that fell short
    credits its kinds in the order of ``rows``; that some are missing is certain, which is not.
    Operators that only need a generated loop are lowered by being compiled at all.
    """
    left: dict[str, dict[str, int]] = {}
    for kernel, count in reached.items():
        left.setdefault(_KIND_OF_KERNEL[kernel], {})[kernel] = count
    return tuple(
        _lowered(row, left.get(_family(row.kind), {}), repeated.get(row.kind, 0)) for row in rows
    )


def _family(kind: str) -> str:
    return "conv" if kind.startswith("conv") else kind


def _lowered(row: OpRow, left: dict[str, int], repeated: int) -> OpRow:
    """Take up to ``row.planned`` sites out of ``left``."""
    kernels: dict[str, int] = {}
    missing = row.planned
    for kernel in list(left):
        taken = min(missing, left[kernel])
        left[kernel] -= taken
        missing -= taken
        if taken:
            kernels[kernel] = taken
    if merged := min(missing, repeated):
        kernels["merged with its equal"] = merged
        missing -= merged
    if row.reach != "kernel" and missing:
        kernels["fused"] = missing
        missing = 0
    return replace(row, lowered=row.planned - missing, kernels=kernels)

"""Compile a q/dq graph with Inductor, whose own patterns turn it into oneDNN kernels.

Inductor only lowers q/dq where ``freezing`` is on while it traces and compiles, and gradients are
off; otherwise it silently runs float. Both are set here, for our own calls only. Everything of
Inductor without a public name (its config switch and its counters, torch 2.13) is used in this
module and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo.utils
import torch._inductor.config
from torch.fx import GraphModule

from quantfx.backends.targets import require_autocast
from quantfx.passes.graphs import all_graphs
from quantfx.passes.include_zero import IncludeZero
from quantfx.passes.lower_weight_only import KERNEL, LowerWeightOnly
from quantfx.passes.nested_calls import autocast_dtype
from quantfx.passes.pass_record import records_of
from quantfx.passes.pipeline import Pipeline
from quantfx.passes.report import OpRow
from quantfx.passes.shield_adds import ShieldAdds
from quantfx.passes.split_constants import SplitConstants
from quantfx.passes.state import preserved_state
from quantfx.passes.widen_casts import WidenCasts

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
# Counts every linear whose weight Inductor packs. Those that no counter above knows are fp16.
_PACKED_LINEARS = "qlinear_weight_prepack_matcher_count"
_FP16_KERNEL = "linear_dynamic_fp16"
# Kernels of one mode; the others serve static and dynamic sites alike.
_MODE_OF_KERNEL = {_FP16_KERNEL: "fp16", KERNEL: "weight-only"}
_KIND_OF_KERNEL = dict(_COUNTERS.values()) | {_FP16_KERNEL: "linear", KERNEL: "linear"}

# What Inductor's own patterns do not see in a q/dq graph as it is, or fail on.
LOWER = Pipeline(
    (
        IncludeZero(),  # this one and the next three do not depend on one another
        ShieldAdds(),
        WidenCasts(),
        LowerWeightOnly(),
        SplitConstants(),  # last: weight-only linears, gone by now, need no copies
    ),
    name="lower",
)


class CompiledModule:
    """A graph module compiled by Inductor; call it like the module.

    Every call runs without gradients and with freezing on, because a new input shape may compile
    again. The switches are thread-local and restored after the call.

    Args:
        module: A q/dq graph.
        autocast: ``torch.bfloat16`` to compute in it between the int8 kernels; None to leave it to
            the caller's own ``torch.autocast``.
    """

    def __init__(self, module: GraphModule, autocast: torch.dtype | None = None) -> None:
        self._run = torch.compile(module)
        self._autocast = autocast

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled module; the first call of a shape compiles.

        Raises:
            QuantfxError: autocast is on, in a dtype that int8 does not mix with on this CPU.
        """
        mixed = self._autocast is not None
        with (
            torch.no_grad(),
            torch._inductor.config.patch(freezing=True),
            torch.autocast("cpu", self._autocast) if mixed else contextlib.nullcontext(),
        ):
            if torch.is_autocast_enabled("cpu"):
                require_autocast(torch.get_autocast_dtype("cpu"))
            return self._run(*args, **kwargs)


def compile_module(
    module: GraphModule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    autocast: torch.dtype | None = None,
) -> tuple[CompiledModule, dict[str, int]]:
    """Compile ``module`` for the given inputs.

    Returns:
        The compiled module, and the kernels that it reached: name -> sites.

    Raises:
        QuantfxError: the module, or the caller, autocasts to a dtype that int8 does not mix with.
    """
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            region = autocast_dtype(node)
            if region is not None:
                require_autocast(region)
    lowered = LOWER.run(module)
    compiled = CompiledModule(lowered, autocast)
    before = _counts()
    with preserved_state(lowered):
        compiled(*args, **kwargs)
    after = _counts()
    new = {name: after[name] - before[name] for name in after}
    reached = {kernel: new[counter] for counter, (kernel, _) in _COUNTERS.items()}
    int8 = sum(count for kernel, count in reached.items() if kernel.startswith("qlinear"))
    reached[_FP16_KERNEL] = new[_PACKED_LINEARS] - int8
    stats = {record.name: record.stats for record in records_of(lowered)}
    reached[KERNEL] = stats[LowerWeightOnly.name]["lowered"]
    return compiled, {kernel: count for kernel, count in reached.items() if count > 0}


def _counts() -> dict[str, int]:
    counters = torch._dynamo.utils.counters["inductor"]
    return {name: int(counters[name]) for name in (*_COUNTERS, _PACKED_LINEARS)}


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
    merged = dict(repeated)
    return tuple(_lowered(row, left.get(_family(row.kind), {}), merged) for row in rows)


def _family(kind: str) -> str:
    return "conv" if kind.startswith("conv") else kind


def _lowered(row: OpRow, left: dict[str, int], repeated: dict[str, int]) -> OpRow:
    """Take up to ``row.planned`` sites out of ``left`` and then of what is ``repeated``."""
    kernels: dict[str, int] = {}
    missing = row.planned
    particular = _MODE_OF_KERNEL.values()
    for kernel in list(left):
        mode = _MODE_OF_KERNEL.get(kernel)
        if mode != row.mode and (mode is not None or row.mode in particular):
            continue
        taken = min(missing, left[kernel])
        left[kernel] -= taken
        missing -= taken
        if taken:
            kernels[kernel] = taken
    if merged := min(missing, repeated.get(row.kind, 0)):
        repeated[row.kind] -= merged
        kernels["merged with its equal"] = merged
        missing -= merged
    if row.reach != "kernel" and missing:
        kernels["fused"] = missing
        missing = 0
    return replace(row, lowered=row.planned - missing, kernels=kernels)

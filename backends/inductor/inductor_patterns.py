"""The other route to kernels: Inductor's own patterns find them in a q/dq graph.

They are in torch 2.13 and left it with 2.14. Which site reached which kernel is not known, only
how many of a family did: Inductor counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.backends.checks.lowering import complain
from quantfx.backends.inductor.compile import CompiledModule, Variants
from quantfx.backends.inductor.torch_internals import has_qdq_patterns, inductor_counter
from quantfx.backends.onednn.int8pack import KERNEL, Int8Pack
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.split_constants import SplitConstants
from quantfx.passes.convert.widen_casts import WidenCasts
from quantfx.passes.errors import ContractError
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.lower.include_zero import IncludeZero
from quantfx.passes.lower.lower import Lower
from quantfx.passes.lower.shield_adds import ShieldAdds
from quantfx.passes.model.input_copies import spared_inputs
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.lowered import lowered_nodes
from quantfx.passes.report.contract import planned_matches
from quantfx.passes.report.repeated_sites import repeated_sites
from quantfx.passes.report.report import OpRow
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.pattern_set import PatternSet

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

# torch 2.13: Inductor fuses these into an int8 conv1d, whose kernel then raises when it is called.
_REFUSED_BY_CONV1D = ("hardtanh", "relu6", "hardswish", "silu")

# What Inductor's own patterns do not see in a q/dq graph as it is, or fail on.
ADAPT = Pipeline(
    (
        IncludeZero(),  # this one and the next three do not depend on one another
        ShieldAdds(),
        WidenCasts(),
        Lower(),  # weight-only linears, for which Inductor has no pattern; nothing else
        SplitConstants(),  # last: weight-only linears, gone by now, need no copies
    ),
    name="adapt",
)


def require_patterns() -> None:
    """Refuse a torch that has no such patterns.

    Raises:
        QuantfxError: says what compiles there instead.
    """
    if not has_qdq_patterns():
        raise QuantfxError(
            "compile(lower='inductor') needs Inductor's own patterns for q/dq graphs, which torch "
            f"2.13 was the last to have; this is torch {torch.__version__}: use lower='onednn', "
            "the default, which needs none of them"
        )


def compile_by_patterns(
    module: GraphModule,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    recipe: Recipe,
    autocast: torch.dtype | None = None,
) -> tuple[CompiledModule, dict[str, int]]:
    """Compile a q/dq graph for the given inputs.

    Returns:
        The compiled module, and the kernels that it reached: name -> sites.

    Raises:
        QuantfxError: the caller autocasts to a dtype that int8 does not mix with.
        ContractError: a conv1d feeds what Inductor would wrongly fuse into it.
    """
    _require_conv1d(module, recipe.patterns)
    weight_only = replace(recipe, patterns=recipe.patterns.of_mode("weight-only"))
    lowered = ADAPT.run(module, Context(weight_only, (Int8Pack(),)))
    variants = Variants(lowered)
    compiled = CompiledModule(variants, autocast)
    before = _counts()
    args, kwargs = spared_inputs(variants.exact, args, dict(kwargs))
    with preserved_state(variants.exact):
        compiled(*args, **kwargs)
    after = _counts()
    new = {name: after[name] - before[name] for name in after}
    reached = {kernel: new[counter] for counter, (kernel, _) in _COUNTERS.items()}
    int8 = sum(count for kernel, count in reached.items() if kernel.startswith("qlinear"))
    reached[_FP16_KERNEL] = new[_PACKED_LINEARS] - int8
    reached[KERNEL] = sum(1 for _ in lowered_nodes(lowered))
    return compiled, {kernel: count for kernel, count in reached.items() if count > 0}


def _counts() -> dict[str, int]:
    return {name: inductor_counter(name) for name in (*_COUNTERS, _PACKED_LINEARS)}


def _require_conv1d(module: GraphModule, patterns: PatternSet) -> None:
    refused = {
        target
        for name in _REFUSED_BY_CONV1D
        if name in patterns.vocabulary
        for target in patterns.vocabulary[name].targets
    }
    graphs = dict(all_graphs(module))
    for match in planned_matches(module):
        if match.annotation.kind != "conv1d":
            continue
        [node] = [
            node for node in graphs[match.site.graph].graph.nodes if node.name == match.site.node
        ]
        user = next((user for user in node.users if user.target in refused), None)
        if user is not None:
            raise ContractError(
                f"{match.site} feeds {user.name}: torch 2.13's own patterns fuse the two, and the "
                "kernel then raises. Compile with lower='onednn', or keep it float"
            )


def repeated_kinds(module: GraphModule) -> Counter[str]:
    """Return, by operator kind, how many planned sites repeat the value of an earlier one."""
    repeated = repeated_sites(module)
    matches = [match for match in planned_matches(module) if match.site in repeated]
    return Counter(match.annotation.kind for match in matches)


def require_rows(rows: tuple[OpRow, ...], *, strict: bool) -> None:
    """Raise, or warn unless ``strict``, where a row fell short of what was planned.

    Raises:
        ContractError: names operators and counts.
    """
    short = [row for row in rows if (row.compiled or 0) < row.planned]
    if short:
        counts = ", ".join(f"{row.label} {row.compiled or 0}/{row.planned}" for row in short)
        complain(
            f"planned sites did not reach their int8 kernel: {counts}. torch's own patterns do not "
            "find them there, so they would run slower than float; compile with lower='onednn', or "
            "accept it with strict=False",
            strict=strict,
        )


def compiled_rows(
    rows: tuple[OpRow, ...], reached: Mapping[str, int], repeated: Mapping[str, int]
) -> tuple[OpRow, ...]:
    """Return ``rows`` with what was compiled, according to the kernels that were reached.

    Args:
        rows: Before compiling.
        reached: Kernel -> sites, from ``compile_by_patterns``.
        repeated: Kind -> sites that compute what another site does, which Inductor merges.

    Inductor counts by family (1d, 2d and 3d convolutions together). A family that fell short
    credits its kinds in the order of ``rows``; that some are missing is certain, which is not.
    Operators that only need a generated loop are lowered by being compiled at all.
    """
    left: dict[str, dict[str, int]] = {}
    for kernel, count in reached.items():
        left.setdefault(_KIND_OF_KERNEL[kernel], {})[kernel] = count
    merged = Counter(repeated)
    return tuple(_compiled(row, left.get(_family(row.kind), {}), merged) for row in rows)


def _family(kind: str) -> str:
    return "conv" if kind.startswith("conv") else kind


def _compiled(row: OpRow, left: dict[str, int], repeated: Counter[str]) -> OpRow:
    """Take up to ``row.planned`` sites out of ``left`` and then of what is ``repeated``."""
    kernels: dict[str, int] = {}
    missing = row.planned
    for kernel in _kernels_for(row, left):
        taken = min(missing, left[kernel])
        left[kernel] -= taken
        missing -= taken
        if taken:
            kernels[kernel] = taken
    if merged := min(missing, repeated[row.kind]):
        repeated[row.kind] -= merged
        kernels["merged with its equal"] = merged
        missing -= merged
    if row.reach != "kernel" and missing:
        kernels["fused"] = missing
        missing = 0
    return replace(row, compiled=row.planned - missing, compiled_kernels=kernels)


def _kernels_for(row: OpRow, left: Mapping[str, int]) -> Iterator[str]:
    """Yield the kernels that serve the mode of ``row``."""
    particular = _MODE_OF_KERNEL.values()
    for kernel in list(left):
        mode = _MODE_OF_KERNEL.get(kernel)
        if mode == row.mode or (mode is None and row.mode not in particular):
            yield kernel

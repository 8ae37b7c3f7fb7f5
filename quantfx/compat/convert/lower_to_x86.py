"""Lower a quantized model to oneDNN operators, which run without a compiler."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.backends.checks.targets import host
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.x86 import x86
from quantfx.compat.exported.strip_guards import StripGuards
from quantfx.passes.capture.canonicalize import CANONICALIZE
from quantfx.passes.errors import ArgumentError
from quantfx.passes.graph.facts import facts_of, set_facts
from quantfx.passes.lower.read_plan import ReadPlan
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR
from quantfx.patterns.errors import warn
from quantfx.patterns.schema import argument_value


def lower_pt2e_quantized_to_x86(model: GraphModule, example_inputs: tuple[Any, ...]) -> GraphModule:
    """Return ``model`` with its quantized operators as ``torch.ops.onednn.*``.

    Args:
        model: From ``convert_pt2e``; not changed.
        example_inputs: Positional arguments that it accepts.

    Raises:
        ArgumentError: ``model`` is not a graph.
    """
    if not isinstance(model, GraphModule):
        message = f"a {type(model).__name__} is not a graph"
        raise ArgumentError(message, rule="not-a-graph", fix="use convert_pt2e first")
    if host().saturates and _uses_full_range(model):
        warn(
            f"this CPU ({host().name}) has no VNNI: full-range int8 sums saturate and are "
            "silently wrong.",
            rule="saturates",
            fix="use get_default_x86_inductor_quantization_config(reduce_range=True)",
            stacklevel=2,
        )
    with torch.no_grad():
        program = torch.export.export(model, example_inputs, strict=True)
    exported: Any = program.module()
    StripGuards().run(exported, Context())
    canonical = CANONICALIZE.run(exported)
    set_facts(canonical, facts_of(canonical) | {"qdq"})
    backend = x86()
    # Export keeps no annotations: the q/dq graph itself is the plan.
    pipeline = Pipeline((ReadPlan(),)) + backend.lower_pipeline + Pipeline((FuseSums(eager=True),))
    return pipeline.run(canonical, backend.context)


def _uses_full_range(model: GraphModule) -> bool:
    """Whether some activation reaches beyond the 7 bits that leave room in a 16-bit sum."""
    quantizes = model.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
    return any(argument_value(node, "quant_max") > 127 for node in quantizes)

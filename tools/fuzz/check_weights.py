"""Check that stored integers match their float weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.graphs import all_graphs, constant
from quantfx.passes.quant.qdq import dequantizes
from quantfx.patterns.schema import overload

SUFFIX = "_s8"
HALF_STEP = 0.5 + 1e-3


def wrong_weights(prepared: GraphModule, quantized: GraphModule) -> list[str]:
    """Return a line for each weight that is off by more than half a step, unless it is clipped.

    Args:
        prepared: The graph with the float weights, whose names the integers' names start with.
        quantized: The q/dq graph.
    """
    floats = dict(prepared.named_parameters()) | dict(prepared.named_buffers())
    lines: list[str] = []
    for _, module in all_graphs(quantized):
        for node in module.graph.nodes:
            source = node.args[0] if dequantizes(node) else None
            integers = constant(module, source)
            name = str(getattr(source, "target", ""))
            stored = floats.get(name.removesuffix(SUFFIX))
            if integers is None or stored is None or not name.endswith(SUFFIX):
                continue
            given = [constant(module, each) if hasattr(each, "op") else each for each in node.args]
            with torch.no_grad():
                made: Tensor = overload(node)(*given)
                one: Tensor = overload(node)(torch.ones_like(integers), *given[1:])
            off = (made - stored).abs() / one.abs()
            inside = (integers > integers.amin()) & (integers < integers.amax())
            if bool((off[inside] > HALF_STEP).any()):
                lines.append(f"{name} is off by {float(off[inside].max()):.2f} steps")
    return lines

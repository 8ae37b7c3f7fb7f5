"""Calls that run side by side, as many as fit into memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.convert.repair.rounding_run import FloatRun
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.observers.statistics.sample import Leaves

# Calls run side by side, each in float and rounded: as many as keep at most this much alive.
MOST_BYTES = 2**31


def begin(run: Stepper, call: Leaves) -> None:
    """Start a call with copies of its inputs: a model may write to them."""
    run.start([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in call], {})


def affordable(module: GraphModule, sample: Sequence[Leaves]) -> int:
    """Return how many calls like the first can run side by side, each twice; at least one."""
    if len(sample) < 2:
        return 1
    run = FloatRun(module)
    begin(run, sample[0])
    most = 1
    for node in module.graph.nodes:
        if node.op != "output":
            run.value(node)
            most = max(most, run.alive)
    return max(1, MOST_BYTES // (2 * most))

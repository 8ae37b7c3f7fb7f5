"""How far off each layer's outputs are when all before it is rounded, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.convert.repair.rounding_run import FloatRun, RoundingRun
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.observe.statistics.recorders import held_out
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.observers.statistics.statistics import Leaves
from quantfx.passes.quant.qparams import QParams

# Calls run side by side, each in float and rounded: as many as keep no more than this alive.
MOST_BYTES = 2**31
# Outputs of a channel that are looked at, of all calls together.
MOST_ROWS = 2**16


@dataclass(frozen=True)
class OutputErrors:
    """What rounding adds to a layer's outputs, float32.

    Attributes:
        fitted: ``(rows, channels)``, to choose by.
        held: ``(rows, channels)``, of other samples, to judge by.
    """

    fitted: Tensor
    held: Tensor

    def shift(self) -> Tensor:
        """Return each channel's median; 0 where it would not bring held-out rows nearer.

        Single tokens of a transformer are off by a hundred times as much as all others, and would
        decide a mean for them.
        """
        median = self.fitted.median(0).values
        gains = (self.held - median).abs().mean(0) < self.held.abs().mean(0)
        return torch.where(gains, median, 0.0)


def correct_outputs(
    module: GraphModule,
    sample: Sequence[Leaves],
    layers: Mapping[Node, int],
    choose: Callable[[Node, OutputErrors], Tensor],
) -> None:
    """Run ``module`` in float and rounded, and let each layer behind see what was corrected before.

    Args:
        module: A graph with observers that have seen data; not changed.
        sample: Inputs of calls.
        layers: Convolutions and linears of the graph, in its order, with the number of dimensions
            behind their channels: 0 of a linear.
        choose: Returns what is taken off the layer's rounded outputs, ``(channels,)``.
    """
    with torch.no_grad(), preserved_state(module):
        calls = sample[: _affordable(module, sample[0])]
        known: dict[nn.Module, QParams] = {}
        runs = [(FloatRun(module), RoundingRun(module, known)) for _ in calls]
        for call, pair in zip(calls, runs, strict=True):
            for each in pair:
                _begin(each, call)
        for node, behind in layers.items():
            errors = [_rows(each.value(node) - exact.value(node), behind) for exact, each in runs]
            shift = choose(node, _split(errors)).reshape(-1, *[1] * behind)
            for _, each in runs:
                value: Tensor = each.value(node)
                each.put(node, value - shift.to(value))


def _begin(run: Stepper, call: Leaves) -> None:
    """Start a call with inputs of its own: a model may write to them."""
    run.start([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in call], {})


def _affordable(module: GraphModule, call: Leaves) -> int:
    """Return how many calls like this one can be run side by side."""
    run = FloatRun(module)
    _begin(run, call)
    most = 1
    for node in module.graph.nodes:
        if node.op != "output":
            run.value(node)
            most = max(most, run.alive)
    return max(1, MOST_BYTES // (2 * most))


def _rows(value: Tensor, behind: int) -> tuple[Tensor, Tensor]:
    """Return outputs as ``(rows, channels)``, and the number of the sample of each row."""
    channels_last = value.movedim(-1 - behind, -1).float()
    rows = channels_last.reshape(-1, channels_last.shape[-1])
    return rows, torch.arange(len(rows)) // max(1, len(rows) // len(value))


def _split(calls: list[tuple[Tensor, Tensor]]) -> OutputErrors:
    """Return some of all rows, by whether their sample is held out.

    Args:
        calls: Rows and their samples.
    """
    starts = [0]
    for _, samples in calls:
        starts.append(starts[-1] + int(samples[-1]) + 1)
    rows = torch.cat([each for each, _ in calls])
    samples = torch.cat([each + start for (_, each), start in zip(calls, starts, strict=False)])
    step = max(1, -(-len(rows) // MOST_ROWS))
    while math.gcd(step, len(rows)) > 1:  # or each sample would give the same columns
        step += 1
    rows, held = rows[::step], held_out(samples[::step])
    return OutputErrors(rows[~held], rows[held])

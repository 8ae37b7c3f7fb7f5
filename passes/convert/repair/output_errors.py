"""How far off each layer's outputs are when all before it is rounded, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.convert.repair.lock_step import affordable, begin
from quantfx.passes.convert.repair.rounding_run import FloatRun, RoundingRun
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.observe.statistics.recorders import held_out
from quantfx.passes.observers.statistics.sample import Leaves
from quantfx.passes.quant.qparams import QParams

# Outputs of a channel that are looked at, of all calls together.
MOST_ROWS = 2**12


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
        if not len(self.fitted) or not len(self.held):
            return torch.zeros(self.fitted.shape[1], device=self.fitted.device)
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
        calls = sample[: affordable(module, sample)]
        known: dict[nn.Module, QParams] = {}
        runs = [(FloatRun(module), RoundingRun(module, known)) for _ in calls]
        for call, pair in zip(calls, runs, strict=True):
            for each in pair:
                begin(each, call)
        most = -(-MOST_ROWS // len(runs))
        for node, behind in layers.items():
            pairs = [(exact.value(node), rounded.value(node)) for exact, rounded in runs]
            shift = choose(node, _errors(pairs, behind, most)).reshape(-1, *[1] * behind)
            if not bool(shift.any()):
                continue
            for (_, value), (_, rounded) in zip(pairs, runs, strict=True):
                rounded.put(node, value - shift.to(value))


def _errors(pairs: Sequence[tuple[Tensor, Tensor]], behind: int, most: int) -> OutputErrors:
    """Return some rows of what lies between two outputs of each call.

    Args:
        pairs: In float and rounded.
        behind: Dimensions behind the channels.
        most: Rows of each call.
    """
    errors: list[Tensor] = []
    samples: list[Tensor] = []
    start = 0
    for exact, rounded in pairs:
        picked = _picks(exact, behind, most)
        errors.append(_taken(rounded, behind, picked) - _taken(exact, behind, picked))
        rows = max(1, _rows(exact, behind) // max(1, len(exact)))
        samples.append(start + picked // rows)
        start += len(exact)
    every, held = torch.cat(errors), held_out(torch.cat(samples))
    return OutputErrors(every[~held], every[held])


def _rows(value: Tensor, behind: int) -> int:
    channels = value.shape[-1 - behind]
    return value.numel() // channels if channels else 0


def _picks(value: Tensor, behind: int, most: int) -> Tensor:
    """Return the numbers of ``most`` rows at most, evenly spread."""
    rows = _rows(value, behind)
    step = max(1, -(-rows // most))
    while rows and math.gcd(step, rows) > 1:  # or each sample would give the same columns
        step += 1
    return torch.arange(0, rows, step, device=value.device)


def _taken(value: Tensor, behind: int, picked: Tensor) -> Tensor:
    """Return rows of outputs, float32, ``(rows, channels)``."""
    if not behind:
        return value.reshape(-1, value.shape[-1])[picked].float()
    by_place = value.reshape(-1, value.shape[-1 - behind], math.prod(value.shape[-behind:]))
    places = by_place.shape[2]
    return by_place[picked // places, :, picked % places].float()

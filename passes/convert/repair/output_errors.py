"""Errors of each layer's outputs, by channel, when everything before the layer is rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.convert.repair.rounding_run import FloatRun, RoundingRun, affordable, begin
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.observe.statistics.recorders import held_out
from quantfx.passes.observers.statistics.sample import Leaves
from quantfx.passes.quant.qparams import QParams

# Outputs of a channel that are examined, over all calls.
MOST_ROWS = 2**12


@dataclass(frozen=True)
class OutputErrors:
    """The rounding errors of a layer's outputs, float32.

    Attributes:
        fitted: ``(rows, channels)``, for the choice.
        held: ``(rows, channels)``, from other samples, for judging.
    """

    fitted: Tensor
    held: Tensor

    def shift(self) -> Tensor:
        """Return each channel's median; 0 if it would not reduce the error of held-out rows.

        The median, because single tokens of a transformer err a hundred times more than all others
        and would dominate a mean.
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
    """Run ``module`` in float and rounded, and let each layer see the corrections before it.

    Args:
        module: A graph with observers that have seen data; not changed.
        sample: Inputs of calls.
        layers: Convolutions and linears in graph order, with the number of dimensions after their
            channels: 0 for a linear.
        choose: Returns the correction to subtract from the layer's rounded outputs,
            ``(channels,)``.
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
    """Return some rows of the differences between the two outputs of each call.

    Args:
        pairs: Outputs in float and rounded.
        behind: Number of dimensions after the channels.
        most: Maximum number of rows per call.
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
    """Return the indices of at most ``most`` rows, evenly spread."""
    rows = _rows(value, behind)
    step = max(1, -(-rows // most))
    while rows and math.gcd(step, rows) > 1:  # otherwise each sample would give the same columns
        step += 1
    return torch.arange(0, rows, step, device=value.device)


def _taken(value: Tensor, behind: int, picked: Tensor) -> Tensor:
    """Return rows of outputs, float32, ``(rows, channels)``."""
    if not behind:
        return value.reshape(-1, value.shape[-1])[picked].float()
    by_place = value.reshape(-1, value.shape[-1 - behind], math.prod(value.shape[-behind:]))
    places = by_place.shape[2]
    return by_place[picked // places, :, picked % places].float()

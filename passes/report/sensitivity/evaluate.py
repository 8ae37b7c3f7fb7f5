"""Evaluate the sites that an estimate ranks first: each rounded alone, and each float alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.report.sensitivity.metric_call import failure, number_of
from quantfx.passes.report.sensitivity.outputs import errors_of, finite, float_outputs, powers
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.partly_rounded import PartlyRounded
from quantfx.passes.report.sensitivity.ranking import Evaluation, Measured, noise_decibels
from quantfx.passes.report.sensitivity.sensitivity import Sensitivity
from quantfx.patterns.errors import QuantfxError

Metric = Callable[[nn.Module], float]
"""How good a model is; higher is better."""


def evaluate_sites(
    sensitivity: Sensitivity, paired: PairedGraphs, metric: Metric, name: str, most: int
) -> Sensitivity:
    """Return ``sensitivity`` with the values of ``metric`` for the sites that cost most.

    Each site takes two evaluations, with the ranges of the q/dq graph. A conversion with
    ``Config().call(site, None)`` gives the same, unless other sites depend on the site: a pool is
    int8 only if int8 flows in, and shared ranges then cover fewer tensors.

    Args:
        sensitivity: The estimate.
        paired: Both graphs.
        metric: How good a model is; higher is better.
        name: Name of the metric.
        most: Number of sites to evaluate.

    Raises:
        QuantfxError: the metric raises, or returns no number.
    """
    every = {part.anchor.name for part in paired.parts}

    def measured(told: str, rounded: Collection[str]) -> float:
        try:
            return number_of(lambda: metric(PartlyRounded(paired, rounded)))
        except QuantfxError as reason:
            raise failure(name, told, reason) from reason

    exact = measured("the float model", ())
    evaluation = Evaluation(name, exact=exact, rounded=measured("all sites rounded", every))
    found = {
        row.name: Measured(
            alone=measured(f"{row.name} alone rounded", {row.name}),
            without=measured(f"{row.name} alone in float", every - {row.name}),
        )
        for row in sensitivity.ranked()[:most]
    }
    return sensitivity.with_measured(evaluation, found)


class OutputSQNR:
    """Signal to noise of a model's outputs in dB, each output relative to its own power.

    Args:
        paired: The graphs; the float graph gives the exact outputs.
        calls: The inputs to compare on.
    """

    def __init__(self, paired: PairedGraphs, calls: Sequence[Inputs]) -> None:
        self._calls = calls
        exact = PartlyRounded(paired, ())
        self._exact = [float_outputs(exact, call) for call in calls]
        self._power = _total([finite(outputs) for outputs in self._exact])

    def __call__(self, model: nn.Module) -> float:
        """Return the signal to noise ratio of ``model`` in dB."""
        noise = _total(
            [
                errors_of(known, float_outputs(model, call))
                for call, known in zip(self._calls, self._exact, strict=True)
            ]
        )
        heard = self._power > 0
        shares = noise[heard] / self._power[heard]
        return noise_decibels(float(shares.mean())) if len(shares) else math.inf


def _total(calls: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the power of each output over all calls."""
    return torch.stack([powers(outputs, 1)[:, 0] for outputs in calls]).sum(0)

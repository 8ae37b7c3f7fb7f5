"""Evaluate the sites that an estimate ranks first: each rounded alone, and each float alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.leaves import Inputs, input_leaves
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.sensitivity.outputs import errors_of, finite, float_outputs, powers
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
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


class PartlyRounded(nn.Module):
    """Computes some sites as in the q/dq graph, and all others as in the float graph.

    Ranges always come from the q/dq graph: nothing is recalibrated. Calls run operator by operator
    without gradients, and take inputs of the sizes that the graphs take.

    Args:
        paired: Both graphs.
        rounded: The anchors of the sites to round.
    """

    def __init__(self, paired: PairedGraphs, rounded: Collection[str]) -> None:
        super().__init__()
        self._paired = paired
        self._parts = [part for part in paired.parts if part.anchor.name in rounded]
        self._stepper = _PartlyRoundedStepper(paired, self._parts)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's results."""
        paired = self._paired
        leaves = [leaf for _, leaf in input_leaves(paired.reference, *copy_inputs(args, kwargs))]
        with torch.no_grad(), preserved_state(paired.reference), preserved_state(paired.quantized):
            self._stepper.start(leaves, paired.kept(self._parts))
            found = self._stepper.value(paired.output)
        return paired.reference.graph.process_outputs(found)


class _PartlyRoundedStepper(Stepper):
    """Runs the float graph, with the result of each of ``parts`` as in the q/dq graph."""

    def __init__(self, paired: PairedGraphs, parts: Collection[Part]) -> None:
        super().__init__(paired.reference)
        self._paired = paired
        self._rounded = {paired.end(part): part for part in parts}

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        part = self._rounded.get(node)
        if part is None:
            return super()._call(node, values)
        found = self._paired.own_value(part, values)
        for each in self._paired.inputs(part):
            self.release(each)
        return found


def number_of(metric: Callable[[], Any]) -> float:
    """Return the result of a metric as a number.

    Args:
        metric: Function that calls the metric.

    Raises:
        QuantfxError: it raises, or returns NaN or something that is not a number; the message has
            no subject yet.
    """
    try:
        value = float(metric())
    except Exception as raised:  # a user's function may raise anything
        fix = "" if isinstance(raised, QuantfxError) else "call it with the model by itself"
        message = f"raises {type(raised).__name__}: {raised}"
        raise QuantfxError(message, rule="metric-fails", fix=fix) from raised
    if math.isnan(value):
        raise QuantfxError("is NaN", rule="metric-fails")
    return value


def failure(name: str, told: str, reason: QuantfxError) -> QuantfxError:
    """Return the error of a metric that failed.

    Args:
        name: Name of the metric.
        told: What the metric was evaluated on.
        reason: The failure, as ``number_of`` raises it.
    """
    message = f"metric {name} of {told} {reason.message}"
    return QuantfxError(message, rule="metric-fails", site=told, fix=reason.fix)

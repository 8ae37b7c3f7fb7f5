"""The measurements at one site, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from quantfx.passes.graph.graphs import Site
from quantfx.passes.report.compare.tally import Fidelity


@dataclass(frozen=True)
class RangeNumbers:
    """How exact values fill the range of one quantized activation.

    Attributes:
        tensor: The slot that reads it, e.g. ``conv2d_1.input``.
        source: The node that computes it.
        scale: Scale of the range.
        zero_point: Zero point of the range.
        values: Number of values seen.
        clipped: Share of the values outside of the range.
        used: Share of the integers between the smallest and the largest value.
        bulk: Share of the integers that hold 99.9 % of the values other than 0.
        channel_spread: Largest magnitude of a channel over the median channel's.
        channels: Number of channels.
        silent_channels: Number of channels that held only zeros.
        shared_with: Other tensors of the same sharing group, except results of the match.
    """

    tensor: str
    source: str
    scale: float
    zero_point: int
    values: int
    clipped: float
    used: float
    bulk: float
    channel_spread: float
    channels: int
    silent_channels: int
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightNumbers:
    """How close an int8 weight is to the float weight.

    Attributes:
        tensor: The slot that reads it, e.g. ``conv2d_1.weight``.
        sqnr: Signal to quantization noise ratio in dB.
        best: SQNR with scales that just hold the largest magnitude.
        worst_channel: Lowest SQNR of an output channel.
        spread: Largest magnitude of a channel over the median channel's.
        per_channel: Whether each channel has its own scale.
        silent_channels: Number of channels that hold only zeros.
    """

    tensor: str
    sqnr: float
    best: float
    worst_channel: float
    spread: float
    per_channel: bool
    silent_channels: int


@dataclass(frozen=True)
class Diagnosis:
    """A problem of a tensor, by name.

    Attributes:
        name: ``other-literals``, ``wrong-scale``, ``clipped``, ``scale-floor``, ``outlier``,
            ``wide-range``, ``unequal-weights``, ``unequal-channels`` or ``silent-channels``.
        tensor: The tensor.
        message: The figures.
        remedy: What quantfx offers against it.
    """

    name: str
    tensor: str
    message: str
    remedy: str


@dataclass(frozen=True)
class SiteNumbers:
    """Comparison of one site of the q/dq graph with the float graph.

    Attributes:
        site: The anchor of the match.
        op: Its operator.
        module: Path of the user's module it comes from.
        mode: How it is quantized.
        accumulated: How close its result is, with the errors of all earlier sites; None without a
            float result.
        own: How close its result is when its inputs are exact.
        inputs: Numbers of each quantized activation that it reads.
        weights: Numbers of each quantized weight.
        diagnoses: The problems found, worst first.
    """

    site: Site
    op: str
    module: str
    mode: str
    accumulated: Fidelity | None
    own: Fidelity | None
    inputs: tuple[RangeNumbers, ...] = ()
    weights: tuple[WeightNumbers, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def own_sqnr(self) -> float:
        """Its own SQNR in dB; infinite without a float result."""
        return math.inf if self.own is None else self.own.sqnr


def plain_numbers(values: Any) -> Any:
    """Return nested data in which numbers that JSON cannot spell are text (``"inf"``)."""
    if isinstance(values, dict):
        return {key: plain_numbers(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain_numbers(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return str(values)
    return values

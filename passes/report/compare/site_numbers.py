"""What is measured at one site, as data."""

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
        scale: Of the range.
        zero_point: Of the range.
        values: How many values came by.
        clipped: Share of the values outside of the range.
        used: Share of the integers between the smallest and the largest value.
        bulk: Share of the integers that hold 99.9 % of the values other than 0.
        channel_spread: Largest magnitude of a channel over that of the median channel.
        channels: How many channels it has.
        silent_channels: Channels that held nothing but zeros.
        shared_with: Other tensors of the same qparams group, but for results of the match.
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
    """How near an int8 weight is to the float one.

    Attributes:
        tensor: The slot that reads it, e.g. ``conv2d_1.weight``.
        sqnr: Signal to quantization noise ratio in dB.
        best: What scales that just hold the largest magnitude would give.
        worst_channel: That of the output channel which has the lowest.
        spread: Largest magnitude of a channel over that of the median channel.
        per_channel: Whether each channel has a scale of its own.
        silent_channels: Channels that are nothing but zeros.
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
    """What is the matter with a tensor, by name.

    Attributes:
        name: ``other-literals``, ``wrong-scale``, ``clipped``, ``scale-floor``, ``outlier``,
            ``wide-range``, ``unequal-weights``, ``unequal-channels`` or ``silent-channels``.
        tensor: Which tensor.
        message: The figures.
        remedy: What quantfx has for it.
    """

    name: str
    tensor: str
    message: str
    remedy: str


@dataclass(frozen=True)
class SiteNumbers:
    """One site of the q/dq graph beside the float graph.

    Attributes:
        site: The anchor of the match.
        op: Its operator.
        module: Path of the user's module it comes from.
        mode: How it is quantized.
        accumulated: How near its result is, with the errors of all sites before it; None without a
            float result.
        own: How near its result is when its inputs are exact.
        inputs: Of each quantized activation that it reads.
        weights: Of each quantized weight.
        diagnoses: What is the matter, worst first.
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
    """Return nested data with numbers that JSON has no spelling for as text (``"inf"``)."""
    if isinstance(values, dict):
        return {key: plain_numbers(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain_numbers(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return str(values)
    return values

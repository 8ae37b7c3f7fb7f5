"""Diagnose the problems of a site, and name quantfx's remedies.

At the limits, 8 bits lose two or three bits: a range of which an eighth is used has 5 bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Node
from torch.fx.node import map_arg

from quantfx.passes.quant.scale_floor import SCALE_FLOOR
from quantfx.passes.report.compare.site_numbers import (
    Diagnosis,
    RangeNumbers,
    SiteNumbers,
    WeightNumbers,
)

_CLIPPED = 0.01
_BULK = 1 / 8
_USED = 1 / 4
_SPREAD = 16.0
_SILENT = 1 / 4
# Fewer values do not tell how a range is filled.
_FEW = 256
# Pair bounds cost at most 6 dB, and clipping for the least total error costs less.
_BOUND = 9.0
_SET_BY = ", which an outlier or different data in calibration may have set"
_SMOOTH = 'backends.get("x86", smooth=0.7) moves the size of its channels into the weights'


def diagnose(numbers: SiteNumbers) -> tuple[Diagnosis, ...]:
    """Return the diagnoses of a site, worst first."""
    found = [each for tensor in numbers.inputs for each in _of_range(tensor, numbers.op)]
    found += [each for tensor in numbers.weights for each in _of_weight(tensor)]
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.name)))


def other_literals(exact: Node, found: Node) -> Iterator[Diagnosis]:
    """Yield a diagnosis if an operator's literals differ between the q/dq and the float graph."""
    mine = map_arg((exact.args, exact.kwargs), lambda _: None)
    theirs = map_arg((found.args, found.kwargs), lambda _: None)
    if mine != theirs:
        yield Diagnosis(
            "other-literals",
            found.name,
            f"{found.name} has the literals {_literals(found)} in the q/dq graph, and "
            f"{_literals(exact)} in the float one",
            "a pass lost them: quantfx.bisect names it",
        )


_ORDER = (
    "other-literals",
    "wrong-scale",
    "clipped",
    "scale-floor",
    "outlier",
    "wide-range",
    "unequal-weights",
    "unequal-channels",
    "silent-channels",
)


def _of_range(each: RangeNumbers, op: str) -> Iterator[Diagnosis]:
    if each.scale <= SCALE_FLOOR:
        yield Diagnosis(
            "scale-floor",
            each.tensor,
            "the scale is the smallest that kernels take: calibration saw nothing but zeros",
            "calibrate with data in which the tensor has values",
        )
    elif each.values >= _FEW:
        yield from _fill(each, op)
        yield from _channels(each, op)


def _fill(each: RangeNumbers, op: str) -> Iterator[Diagnosis]:
    keep_float = f'Config.tensor("{each.tensor}", "float") keeps the tensor float'
    shared = f"; {', '.join(each.shared_with)} share it" if each.shared_with else ""
    if each.clipped > _CLIPPED:
        yield Diagnosis(
            "clipped",
            each.tensor,
            f"{each.clipped:.1%} of the values lie outside the range{shared}",
            f'calibrate with data like this; Config.tensor("{each.tensor}", observer="min_max") '
            "clips nothing that calibration saw",
        )
    if each.used < _USED:
        yield Diagnosis(
            "wide-range",
            each.tensor,
            f"the values use {each.used:.1%} of the range{shared or _SET_BY}",
            keep_float if shared else f"calibrate with data like this, or {keep_float}",
        )
    elif each.bulk < _BULK:
        smooth = f"{_SMOOTH}, or " if op == "linear" else ""
        yield Diagnosis(
            "outlier",
            each.tensor,
            f"a few values set the range: 99.9 % of all values use {each.bulk:.1%} of it",
            f"{smooth}calibrate without them if they are not real data, or {keep_float}",
        )


def _channels(each: RangeNumbers, op: str) -> Iterator[Diagnosis]:
    if op == "linear" and each.channel_spread > _SPREAD:
        yield Diagnosis(
            "unequal-channels",
            each.tensor,
            f"the largest channel is {each.channel_spread:.0f} times the median channel",
            _SMOOTH,
        )
    if each.silent_channels > _SILENT * max(each.channels, 1):
        yield Diagnosis(
            "silent-channels",
            each.tensor,
            f"{each.silent_channels} of {each.channels} channels were 0 in every call",
            "calibrate with data in which they are not 0, or prune them: they cost time",
        )


def _of_weight(each: WeightNumbers) -> Iterator[Diagnosis]:
    if each.sqnr < each.best - _BOUND:
        yield Diagnosis(
            "wrong-scale",
            each.tensor,
            f"the int8 weight is {each.sqnr:.1f} dB from the float one, where its own range would "
            f"give {each.best:.1f} dB",
            "a pass or an observer chose the scale wrongly: quantfx.bisect names it",
        )
    if not each.per_channel and each.spread > _SPREAD:
        yield Diagnosis(
            "unequal-weights",
            each.tensor,
            f"one scale for all, and the largest channel is {each.spread:.0f} times the median",
            "use a backend whose weights are per channel, such as x86, or keep the operator float",
        )


def _literals(node: Node) -> str:
    values = map_arg((node.args, node.kwargs), lambda _: None)
    args, kwargs = values
    listed = [str(value) for value in args if value is not None]
    return ", ".join([*listed, *(f"{key}={value}" for key, value in kwargs.items())]) or "none"

"""Compare int8 weights with the float weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS, DEQUANTIZE_PER_CHANNEL, dequantizes
from quantfx.passes.quant.scale_floor import SCALE_FLOOR
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.compare.site_numbers import WeightNumbers
from quantfx.patterns.schema import argument_value


def weight_numbers(
    part: Part, reference: GraphModule, quantized: GraphModule, common: Mapping[str, Node]
) -> Iterator[WeightNumbers]:
    """Yield the numbers of each quantized weight of a match.

    A weight that the q/dq graph stores in another form (smoothed, merged, transposed) is skipped.

    Args:
        part: The match.
        reference: The float graph.
        quantized: The q/dq graph.
        common: By name, the nodes of the float graph.
    """
    anchor = common.get(part.anchor.name)
    if anchor is None or any(each.name not in common for each in _sources(part)):
        return
    for slot, _ in part.annotation.inputs:
        found = read_slot(part.anchor, slot)
        if not dequantizes(found) or found not in part.stored:
            continue
        stored = constant(quantized, found.all_input_nodes[0])
        exact = constant(reference, _behind_observer(read_slot(anchor, slot)))
        if stored is not None and exact is not None and stored.shape == exact.shape:
            yield _numbers(
                f"{part.anchor.name}.{slot}", exact, _dequantized(quantized, found), found
            )


def _sources(part: Part) -> Iterator[Node]:
    """Yield the sources of the quantized activations: a product, if they are smoothed."""
    return (each.all_input_nodes[0] for each in part.quantizes)


def _behind_observer(node: Node) -> Node:
    while is_observer(node):
        node = node.all_input_nodes[0]
    return node


def _dequantized(module: GraphModule, node: Node) -> Tensor:
    values = [constant(module, arg) if isinstance(arg, Node) else arg for arg in node.args]
    result: Tensor = node.target(*values, **node.kwargs)  # type: ignore[operator]
    return result


def _numbers(tensor: str, exact: Tensor, found: Tensor, dequantize: Node) -> WeightNumbers:
    per_channel = dequantize.target == DEQUANTIZE_PER_CHANNEL
    axis = int(argument_value(dequantize, "axis")) if per_channel else 0
    if dequantize.target == DEQUANTIZE_GROUPS:  # each slice with its own scale is a row
        per_channel, group = True, int(argument_value(dequantize, "group_size"))
        exact, found = exact.reshape(-1, group), found.reshape(-1, group)
    rows = exact.detach().movedim(axis, 0).flatten(1).double()
    noise = found.detach().movedim(axis, 0).flatten(1).double().sub_(rows).square_().sum(1)
    signal = rows.square().sum(1)
    largest = rows.abs().amax(1)
    loud = largest[largest > 0]
    heard = signal > 0
    channels = _decibels(signal[heard], noise[heard])
    return WeightNumbers(
        tensor,
        sqnr=float(_decibels(signal.sum(), noise.sum())),
        best=float(_decibels(signal.sum(), _least_noise(rows, dequantize, per_channel))),
        worst_channel=float(channels.min()) if len(channels) else math.inf,
        spread=float(loud.max() / loud.median()) if len(loud) else 1.0,
        per_channel=per_channel,
        silent_channels=int((largest == 0).sum()),
    )


def _least_noise(rows: Tensor, dequantize: Node, per_channel: bool) -> Tensor:
    """Return the noise of symmetric integers whose scale just holds the largest magnitude."""
    steps = int(argument_value(dequantize, "quant_max"))
    largest = rows.abs().amax(1, keepdim=True) if per_channel else rows.abs().max()
    scale = (largest / steps).clamp(min=SCALE_FLOOR)
    return ((rows / scale).round().mul_(scale).sub_(rows)).square_().sum()


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    return 10 * torch.log10(signal / noise)

"""Sums up the results of one site over calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.annotation import GROUP_KEY, annotation_of
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR, quantizes, tensor_qparams
from quantfx.passes.report.compare.diagnose import diagnose, other_literals
from quantfx.passes.report.compare.lockstep import PartValues
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.compare.site_numbers import RangeNumbers, SiteNumbers
from quantfx.passes.report.compare.tally import CodeTally, ErrorTally
from quantfx.passes.report.compare.weights import weight_numbers

# The channels come before this many spatial dimensions, with or without a batch.
_SPATIAL = re.compile(r"(?:conv|conv_transpose|\w*pool|upsample_\w+)([123])d|pixel_(?:un)?shuffle")
_SECOND = ("batch_norm", "instance_norm", "group_norm", "prelu")
_LAST = re.compile(r"linear|matmul|bmm|layer_norm|rms_norm|\w*(?:lstm|gru|rnn)\w*")


class SiteRecord:
    """The sums of one match."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._accumulated = ErrorTally()
        self._own = ErrorTally()
        # Other quantize operators find their range in each call.
        self._codes = {
            node: CodeTally(tensor_qparams(node))
            for node in part.quantizes
            if node.target == QUANTIZE_PER_TENSOR
        }

    def add(self, values: PartValues) -> None:
        """Add the values of the match in one call."""
        self._accumulated.add(values.exact, values.accumulated)
        self._own.add(values.exact, values.own)
        for node, codes in self._codes.items():
            given = values.inputs[node.name]
            if isinstance(given, Tensor):
                codes.add(given, channel_axis(self._part.anchor))

    def numbers(
        self, reference: GraphModule, quantized: GraphModule, common: Mapping[str, Node]
    ) -> SiteNumbers:
        """Return the numbers from the sums.

        Args:
            reference: The float graph.
            quantized: The q/dq graph.
            common: By name, the nodes of the float graph.
        """
        part = self._part
        slots = dict(_slots(part))
        numbers = SiteNumbers(
            site=Site("", part.anchor.name),
            op=part.annotation.kind,
            module=module_scope(part.anchor),
            mode=part.annotation.mode,
            accumulated=self._accumulated.fidelity(),
            own=self._own.fidelity(),
            inputs=tuple(
                _range(slots.get(node, node.name), node, codes, part)
                for node, codes in self._codes.items()
            ),
            weights=tuple(weight_numbers(part, reference, quantized, common)),
        )
        literals = [
            each
            for node in part.inner
            if node.name in common
            for each in other_literals(common[node.name], node)
        ]
        return replace(numbers, diagnoses=(*literals, *diagnose(numbers)))


def _slots(part: Part) -> Iterator[tuple[Node, str]]:
    """Yield each quantize with the slot that reads it."""
    for node in part.inner:
        annotation = annotation_of(node)
        for slot, _ in annotation.inputs if annotation else ():
            dequantize = read_slot(node, slot)
            for source in dequantize.all_input_nodes[:1]:
                yield source, f"{node.name}.{slot}"


def _range(tensor: str, quantize: Node, codes: CodeTally, part: Part) -> RangeNumbers:
    return RangeNumbers(
        tensor=tensor,
        source=quantize.all_input_nodes[0].name,
        scale=codes.qparams.scale,
        zero_point=codes.qparams.zero_point,
        values=codes.total,
        clipped=codes.clipped_share,
        used=codes.used_range,
        bulk=codes.bulk_range,
        channel_spread=codes.channel_spread,
        channels=0 if codes.channels is None else len(codes.channels),
        silent_channels=codes.silent_channels,
        shared_with=tuple(_sharing(quantize, part)),
    )


def _sharing(quantize: Node, part: Part) -> Iterator[str]:
    """Yield the other tensors whose range ``quantize`` shares, except results of the match."""
    group = quantize.meta.get(GROUP_KEY)
    own = quantize.all_input_nodes[0]
    sources = {
        node.all_input_nodes[0]: None
        for node in quantize.graph.nodes
        if group is not None and quantizes(node) and node.meta.get(GROUP_KEY) == group
    }
    return (each.name for each in sources if each is not own and each not in part.inner)


def channel_axis(anchor: Node) -> int | None:
    """Return the dimension of the channels in the inputs of an operator.

    None for an operator that treats all dimensions alike, such as a sum, or names its own, such as
    cat.

    Args:
        anchor: The operator that a match is about.
    """
    op = operator_name(anchor).split(".")[1].removesuffix("_")
    if spatial := _SPATIAL.fullmatch(op):
        return -1 - int(spatial[1] or 2)
    if op in _SECOND:
        return 1
    return -1 if _LAST.fullmatch(op) else None

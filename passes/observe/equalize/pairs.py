"""Layers that feed other layers, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.graphs import constant, constants
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.equalize.follow_channels import follow, source_of
from quantfx.passes.observe.statistics.patches import CONVOLUTIONS, LINEAR
from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

_CONVOLUTIONS = CONVOLUTIONS | frozenset(
    resolve_op(f"aten.{name}")
    for name in ("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
)
_NORMS_OF_DIMENSION_1 = frozenset(
    resolve_op(f"aten.{name}.default") for name in ("batch_norm", "group_norm")
)
_NORMS_OF_THE_LAST = frozenset(
    resolve_op(f"aten.{name}.default") for name in ("layer_norm", "rms_norm")
)
_FIRST = _CONVOLUTIONS | {LINEAR} | _NORMS_OF_DIMENSION_1 | _NORMS_OF_THE_LAST
_SIZE = resolve_op("aten.sym_size.int")
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer, and the layers that read its result; nothing else reads it.

    Attributes:
        first: A convolution, a linear, or a normalization with a stored scale.
        tensor: The tensor that the second layers read: after ``first``, or ``first`` itself.
        seconds: The second layers: convolutions and linears.
        channels: int64, ``(in,)``: the channel of ``first`` for each input channel of ``seconds``.
    """

    first: Node
    tensor: Node
    seconds: tuple[Node, ...]
    channels: Tensor

    def __str__(self) -> str:
        return f"{self.first.name} -> {', '.join(each.name for each in self.seconds)}"


@dataclass(frozen=True, eq=False)
class PairFinder:
    """Finds the pairs of one graph; meanwhile only its stored tensors may change."""

    module: GraphModule

    def tensors(self) -> dict[Node, Node]:
        """Return tensor -> reader for inputs of convolutions and linears, except graph inputs."""
        found: dict[Node, Node] = {}
        for node in self.module.graph.nodes:
            if self._is_second(node) and (read := read_slot(node, "input")).op == "call_function":
                found.setdefault(read, node)
        return found

    def find(self, tensor: Node) -> Pair | str:
        """Return the pair around one of ``tensors``, or why there is none."""
        seconds = tuple(_readers(tensor))
        for each in seconds:
            arguments_of = [*each.args, *each.kwargs.values()]
            if not self._is_second(each) or arguments_of.count(tensor) > 1:
                return f"{each.name} also reads {tensor.name}"
        path: list[Node] = []
        node = tensor
        while node.target not in _FIRST:
            if node.op == "placeholder":
                return f"{node.name} is an input"
            source = source_of(node)
            if source is None:
                return f"{node.name} ({op_name(node)}) does not pass on a factor of a channel"
            if others := [each for each in _readers(source) if each is not node]:
                return f"{others[0].name} also reads {source.name}"
            path.insert(0, node)
            node = source
        obstacles = [reason for layer in (node, *seconds) if (reason := self.obstacle(layer))]
        channels = obstacles[0] if obstacles else self._channels(node, path, seconds)
        return channels if isinstance(channels, str) else Pair(node, tensor, seconds, channels)

    def _is_second(self, node: Node) -> bool:
        takes = node.target is LINEAR or node.target in CONVOLUTIONS
        return takes and constant(self.module, read_slot(node, "weight")) is not None

    @cached_property
    def written(self) -> dict[Node, Node]:
        """Tensor -> a later node that writes to it."""
        return overwritten(self.module.graph)

    @cached_property
    def _stored(self) -> dict[int, list[Node]]:
        """Id of a stored tensor -> the nodes that read it, under any name."""
        found: dict[int, list[Node]] = {}
        for node, value in constants(self.module):
            found.setdefault(id(value), []).extend(node.users)
        return found

    def obstacle(self, layer: Node) -> str:
        """Return why the weight and bias of ``layer`` cannot be scaled; empty if they can."""
        for name in ("weight", "bias"):
            node = argument_value(layer, name) if name in arguments(overload(layer)) else None
            if node is None and name == "bias":
                continue
            value = constant(self.module, node)
            if value is None:
                return f"{layer.name} has no stored {name}"
            if value.dtype not in _DTYPES:
                return f"the {name} of {layer.name} is {value.dtype}"
            if node in self.written:
                return f"{node} is overwritten by {self.written[node]}"
            if others := [each for each in self._stored[id(value)] if each is not layer]:
                return f"{others[0].name} also reads the {name} of {layer.name}"
        is_last = layer.target not in _NORMS_OF_THE_LAST or self._weight(layer).dim() == 1
        return "" if is_last else f"{layer.name} normalizes several dimensions at once"

    def _channels(self, first: Node, path: list[Node], seconds: tuple[Node, ...]) -> Tensor | str:
        """Return the ``channels`` of a pair, or a sentence on what mixes them.

        Args:
            first: The first layer.
            path: The nodes between it and the second layers, in order.
            seconds: The second layers.
        """
        value = first.meta["val"]
        shape = [1] * value.dim()
        axis = self._axis(first, value.dim())
        shape[axis] = int(value.shape[axis])
        labels = torch.arange(shape[axis]).reshape(shape)
        for node in path:
            followed = follow(node, labels)
            if followed is None:
                return f"{node.name} ({op_name(node)}) mixes channels"
            labels = followed
        for each in seconds:
            if labels.numel() != labels.shape[self._axis(each, labels.dim())]:
                return f"{each.name} reads the channels of {first.name} along another dimension"
        width = self._weight(seconds[0]).shape[1] * groups_of(seconds[0])
        return labels.flatten().expand(width)

    def _axis(self, layer: Node, dimensions: int) -> int:
        """Return the channel dimension of the input and of the result of ``layer``."""
        if layer.target in _NORMS_OF_DIMENSION_1:
            return 1
        if layer.target is LINEAR or layer.target in _NORMS_OF_THE_LAST:
            return dimensions - 1
        return dimensions - self._weight(layer).dim() + 1

    def _weight(self, layer: Node) -> Tensor:
        return cast(Tensor, constant(self.module, read_slot(layer, "weight")))


def groups_of(second: Node) -> int:
    """Return the groups of a convolution; 1 for a linear."""
    return 1 if second.target is LINEAR else argument_value(second, "groups")


def _readers(node: Node) -> list[Node]:
    """Return the nodes that read values of ``node``, not just its shape."""
    return [user for user in node.users if user.target is not _SIZE]

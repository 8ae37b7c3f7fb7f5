"""The weight of a second layer, by input channels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.equalize.pairs import groups_of


@dataclass(frozen=True, eq=False)
class SecondWeight:
    """The weight of a convolution or linear.

    Attributes:
        node: The layer.
        stored: The node that reads the weight.
        value: float64, ``(out, in / groups, *kernel)``.
        groups: Groups of the convolution.
    """

    node: Node
    stored: Node
    value: Tensor
    groups: int

    @classmethod
    def of(cls, module: GraphModule, node: Node) -> SecondWeight:
        """Return the weight of ``node``, which must be stored."""
        stored = read_slot(node, "weight")
        value = constant(module, stored)
        if value is None:
            raise TypeError(f"{node.name} has no stored weight")
        return cls(node, stored, value.detach().double().cpu(), groups_of(node))

    @property
    def squares(self) -> Tensor:
        """Squares of the factors of each input channel, ``(in, out / groups * kernel)``."""
        cut = self._by_group().square().transpose(1, 2)
        return cut.reshape(self.groups * cut.shape[1], -1)

    def times(self, scale: Tensor) -> Tensor:
        """Return the weight with each input channel multiplied by its ``scale``.

        Args:
            scale: float64, ``(in,)``.
        """
        by_group = scale.reshape(self.groups, 1, -1, 1)
        return (self._by_group() * by_group).reshape(self.value.shape)

    def _by_group(self) -> Tensor:
        """``(groups, out / groups, in / groups, kernel)``."""
        out, inputs = self.value.shape[:2]
        return self.value.reshape(self.groups, out // self.groups, inputs, -1)

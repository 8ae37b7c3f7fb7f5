"""The interface between the lowering pass and the kernels: what kernels take and what they emit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.quant.qdq import dequantizes, reads_quantized
from quantfx.passes.quant.spec import Concrete
from quantfx.patterns.match import Match
from quantfx.patterns.schema import argument_value

# Sums of neighbouring input channels only, or of any two.
Saturation = Literal["none", "neighbours", "any"]


@dataclass(frozen=True)
class Candidate:
    """A match in a q/dq graph, with the dequantizes and the quantize around it.

    Its inputs are read from the graph on demand: an earlier site may have been lowered meanwhile.

    Attributes:
        site: The anchor's site.
        match: Match of a template of ``quantized_edges``.
        float_dtype: Dtype of a float result; None for the graph's dtype.
        packs: Role -> spec of each weight that the kernel quantizes itself.
    """

    site: Site
    match: Match
    float_dtype: torch.dtype | None = None
    packs: Mapping[str, Concrete] = field(default_factory=dict[str, Concrete])

    @property
    def anchor(self) -> Node:
        """The convolution, linear, pool or cat itself."""
        return self.match.anchor

    @property
    def kernel(self) -> str:
        """The kernel that the template names."""
        return self.match.template.kernel

    @property
    def reach(self) -> str:
        """How the template is lowered: ``kernel`` or ``layout``."""
        return self.match.template.reach

    def dequantize(self, argument: str) -> Node:
        """Return the node that feeds an argument of the anchor, usually a dequantize or cast."""
        return argument_node(self.anchor, argument)

    def quantized(self, argument: str) -> Node:
        """Return the integer or narrow float tensor that is dequantized for an argument."""
        return argument_node(self.dequantize(argument), "input")

    def indirect(self, *arguments: str) -> str | None:
        """Return, as a sentence, which argument of the anchor reads no dequantize or cast.

        A template may have operators in between that a kernel does not know.
        """
        for argument in arguments:
            if not reads_quantized(self.dequantize(argument)):
                return f"{self.anchor.name}.{argument} reads {self.dequantize(argument).name}"
        return None

    @property
    def behind(self) -> tuple[Node, ...]:
        """The operators of the template between the anchor and the result, in graph order."""
        quantize = self.quantize
        nodes = [node for node in self.match.nodes.values() if not dequantizes(node)]
        return tuple(n for n in sorted(nodes) if self.anchor < n and n is not quantize)

    @property
    def quantize(self) -> Node | None:
        """The quantize of the result; None if the result is float."""
        return self.match.nodes.get(QUANTIZE)

    @property
    def last_float(self) -> Node:
        """The node whose float result leaves the match or is quantized."""
        quantize = self.quantize
        return self.match.output if quantize is None else argument_node(quantize, "input")


QUANTIZE = "q"


def dequantize_name(role: str) -> str:
    """Return the name of the dequantize of ``role`` in a template with quantized edges."""
    return f"{role}_dq"


def argument_node(node: Node, name: str) -> Node:
    """Return the node that feeds argument ``name`` of ``node``.

    Raises:
        TypeError: the argument is not a node.
    """
    value = argument_value(node, name)
    if not isinstance(value, Node):
        raise TypeError(f"{node.name}.{name} is {value!r}, not the result of a node")
    return value


@dataclass(frozen=True)
class Emission:
    """The result of a family's ``emit`` for a candidate.

    Attributes:
        node: The new call.
        stands_for: The node of the match whose value it yields: the output, or an earlier node if
            the kernel computes only the beginning of the match.
        kernel: Name of the kernel that was called.
        takes_empty: Whether the kernel accepts inputs without rows.
        rounds: Whether the kernel rounds a value that no node of the q/dq graph rounds.
    """

    node: Node
    stands_for: Node
    kernel: str
    takes_empty: bool = True
    rounds: bool = False


class KernelFamily(ABC):
    """A group of kernels, as a value: nothing is registered, a backend lists its families.

    A family is verified from outside: ``compare_sites`` runs each emitted call and the part of the
    q/dq graph that it stands for on identical inputs.

    Attributes:
        name: E.g. ``onednn``.
        kernels: Names that templates use for its kernels; empty if ``reach`` decides.
        not_here: Why its calls cannot run on this machine; empty if they can.
        needs_process: Whether its calls run only in processes that have imported quantfx.
    """

    name: ClassVar[str]
    kernels: ClassVar[frozenset[str]] = frozenset()
    not_here: str = ""
    needs_process: ClassVar[bool] = False

    @property
    def saturates(self) -> Saturation:
        """Which sums of two u8 x s8 products saturate on CPUs without VNNI."""
        return "none"

    @property
    def alone(self) -> bool:
        """Whether no other family may take what this family could take."""
        return False

    def prepare(self) -> None:  # noqa: B027  most families need nothing
        """Do what emitting needs once per process, such as registering fake kernels."""

    def takes(self, candidate: Candidate) -> bool:
        """Whether the candidate's template is meant for this family."""
        return candidate.kernel in self.kernels

    @abstractmethod
    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return why its kernels cannot compute a candidate that it takes; None if they can."""

    @abstractmethod
    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Insert the kernel call before the node it stands for, and leave the match in place."""

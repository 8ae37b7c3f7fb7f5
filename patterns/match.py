"""Results of matching: a match with nodes and roles bound, or the reason why there is no match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.fx import Node

from quantfx.patterns.template import Role, Template, Variant

Bound: TypeAlias = Node | tuple[Node, ...] | None


@dataclass(frozen=True)
class Edge:
    """Where a role enters a match: argument ``slot`` of ``node`` reads ``producer``.

    ``slot`` is a schema argument name, with ``.index`` for an element of a list argument.
    """

    role: str
    node: Node
    slot: str
    producer: Node


@dataclass(frozen=True)
class Match:
    """A template found in a graph.

    Attributes:
        variant: The template with the optional nodes that are present.
        nodes: Pattern node name -> graph node.
        roles: Role name -> graph node, tuple of nodes (``*``) or None (``?`` and absent).
    """

    variant: Variant
    nodes: Mapping[str, Node]
    roles: Mapping[str, Bound]

    @property
    def template(self) -> Template:
        """The template that was found."""
        return self.variant.template

    @property
    def label(self) -> str:
        """The template's name with the optional nodes that are present."""
        return self.variant.label

    @property
    def anchor(self) -> Node:
        """The graph node at the template's anchor."""
        return self.nodes[self.template.anchor.name]

    @property
    def output(self) -> Node:
        """The graph node whose result leaves the match."""
        return self.nodes[self.variant.output.name]

    def edges(self) -> Iterator[Edge]:
        """Yield every edge by which a present role enters the match."""
        for pattern_node in self.variant.nodes:
            node = self.nodes[pattern_node.name]
            for slot, binding in pattern_node.arguments:
                if isinstance(binding, Role):
                    bound = self.roles[binding.name]
                    if isinstance(bound, Node):
                        yield Edge(binding.name, node, slot, bound)
                    elif bound is not None:
                        for index, producer in enumerate(bound):
                            yield Edge(binding.name, node, f"{slot}.{index}", producer)


@dataclass(frozen=True)
class NoMatch:
    """Why a template does not match at a node; falsy.

    Attributes:
        label: The template variant that was tried.
        anchor: The node it was tried at.
        depth: How many of the variant's nodes matched; one more if all matched, and another one if
            the match was refused.
        message: Format string of the reason.
        values: Values for the format string; formatted only when the reason is read.
    """

    label: str
    anchor: Node
    depth: int
    message: str
    values: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return False

    @property
    def reason(self) -> str:
        """The first rule that failed, as a sentence without a full stop."""
        return self.message.format(*self.values)

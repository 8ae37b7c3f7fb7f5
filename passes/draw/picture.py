"""The content of a drawing before styling: nodes, edges and the containers around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

NodeKind = Literal[
    "op",
    "kernel",
    "lowered",
    "scalar",
    "control",
    "input",
    "output",
    "constant",
    "quantize",
    "observe",
    "item",
    "module",
    "stub",
]
EdgeKind = Literal["float", "int8", "dequantize", "mismatch", "scalar", "nested", "vanished"]


@dataclass(frozen=True)
class PictureNode:
    """One drawn node.

    Attributes:
        name: Canonical name, unique in the picture; with the path of its graph if nested.
        kind: Kind of node; decides the style.
        title: First line.
        details: Further lines: shape, weights.
        scope: Path of the module that it was called in.
        containers: Paths of the modules drawn as a box around it, outermost first.
        match: Name of the first node of its match; "" outside of matches.
        template: Template of the match.
        group: First tensor with the same qparams; decides the colour of pills and edges.
        centre: Whether the drawing shows the neighbourhood of this node.
        qparams: Scale and zero point of a quantize, if they are numbers; not drawn.
        sqnr: SQNR of its result in dB, which decides its colour; None if unknown.
        change: Its change between two graphs, which decides its colour; "" for none.
    """

    name: str
    kind: NodeKind
    title: str
    _: KW_ONLY
    details: tuple[str, ...] = ()
    scope: str = ""
    containers: tuple[str, ...] = ()
    match: str = ""
    template: str = ""
    group: str = ""
    centre: bool = False
    qparams: str = ""
    sqnr: float | None = None
    change: Literal["", "appeared", "vanished", "changed"] = ""

    @property
    def is_pill(self) -> bool:
        """Whether it stands on an edge and not for an operation."""
        return self.kind in ("quantize", "observe", "item")


@dataclass(frozen=True)
class PictureEdge:
    """One drawn edge.

    Attributes:
        source: Name of the node it leaves.
        target: Name of the node it enters.
        label: Argument slot, if the order of arguments matters.
        kind: What flows. ``int8`` is read as integers, ``dequantize`` through a folded dq,
            ``mismatch`` through a dq whose qparams differ from its q's; ``float`` is any other
            tensor.
        group: Group of an integer edge, see ``PictureNode.group``.
    """

    source: str
    target: str
    label: str = ""
    kind: EdgeKind = "float"
    group: str = ""


@dataclass(frozen=True)
class Picture:
    """A graph as drawn.

    Attributes:
        nodes: By name, in canonical order.
        edges: In canonical order of their targets, then by slot.
        containers: Path of every module or nested graph drawn as a box -> what it is.
        aliases: Other names -> the nodes drawn for them (a folded dequantize: its readers).
    """

    nodes: Mapping[str, PictureNode]
    edges: tuple[PictureEdge, ...]
    containers: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]

    @property
    def depth(self) -> int:
        """The maximum number of nested boxes."""
        return max((len(node.containers) for node in self.nodes.values()), default=0)

"""What a drawing consists of, before any styling: nodes, edges and the containers around them."""

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
        kind: What it is, by which it is styled.
        title: First line.
        details: Further lines: shape, weights.
        scope: Path of the module it was called in.
        containers: Paths of the modules drawn as a box around it, outermost first.
        match: Name of the first node of its match; "" outside of matches.
        template: Template of the match.
        group: First tensor with the same qparams, by which pills and edges are coloured.
        centre: Whether the drawing was asked to show the neighbourhood of this node.
        qparams: Scale and zero point of a quantize, where they are numbers; not drawn.
        sqnr: How near its result is to the float one in dB, by which it is coloured; None without.
        change: What became of it between two graphs, by which it is coloured; "" for nothing.
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
        """Whether it stands on an edge rather than for an operation."""
        return self.kind in ("quantize", "observe", "item")


@dataclass(frozen=True)
class PictureEdge:
    """One drawn edge.

    Attributes:
        source: Name of the node it leaves.
        target: Name of the node it enters.
        label: Argument slot, where the order of arguments matters.
        kind: What flows. ``int8`` is read as integers, ``dequantize`` through a folded dq,
            ``mismatch`` through one with other qparams than its q; ``float`` is any other tensor.
        group: Qparams of an integer edge, see ``PictureNode.group``.
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
        """How many boxes are nested at most."""
        return max((len(node.containers) for node in self.nodes.values()), default=0)

"""Draw a graph module as deterministic DOT text.

Equal graphs give equal bytes, whatever the names and order of their nodes, so the text serves as a
snapshot. Names and order come from ``canonical_order``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile

from torch.fx import GraphModule

from quantfx.passes.draw.picture import Picture, PictureEdge, PictureNode
from quantfx.passes.draw.reading import read_picture
from quantfx.passes.draw.style import (
    BOX,
    HEADER,
    MATCH,
    attributes,
    detail,
    edge_style,
    markup,
    node_style,
    quote,
)
from quantfx.passes.draw.views import collapse, fit, heat_up, neighbourhood
from quantfx.patterns.errors import QuantfxError


def to_dot(
    module: GraphModule,
    *,
    depth: int | None = None,
    around: str | None = None,
    radius: int = 3,
    heat: Mapping[str, float] | None = None,
) -> str:
    """Return the drawing of ``module`` as DOT text.

    Args:
        module: The module to draw, with the graphs nested in its control flow.
        depth: Draw modules nested deeper than this as one node each.
        around: Draw only the neighbourhood of this node (its canonical or FX name) or module.
        radius: Size of the neighbourhood around ``around``, in operations.
        heat: SQNR in dB by node name, which colours nodes: see ``Comparison.heat``.

    Raises:
        QuantfxError: no node or module is called ``around``, or a number is negative.
    """
    if (depth is not None and depth < 0) or radius < 0:
        message = f"depth={depth} and radius={radius} must not be negative"
        raise QuantfxError(message, rule="number-range", site=f"depth={depth}, radius={radius}")
    picture = heat_up(read_picture(module), heat or {})
    if around is not None:
        picture = neighbourhood(picture, around, radius)
    if depth is not None:
        picture = collapse(picture, depth)
    return dot_text(picture)


def to_overview_dot(
    module: GraphModule, *, limit: int, heat: Mapping[str, float] | None = None
) -> str:
    """Return the drawing of ``module`` with just enough modules collapsed for ``limit`` nodes."""
    return dot_text(fit(heat_up(read_picture(module), heat or {}), limit))


@dataclass
class _Box:
    """A cluster under construction: its attributes, and its members in order of insertion."""

    name: str = ""
    style: Mapping[str, str] = field(default_factory=dict[str, str])
    members: list[_Box | PictureNode] = field(default_factory=list["_Box | PictureNode"])
    boxes: dict[str, _Box] = field(default_factory=dict[str, "_Box"])

    def inner(self, name: str, style: Mapping[str, str]) -> _Box:
        """Return the box called ``name`` in this one."""
        if name not in self.boxes:
            self.boxes[name] = _Box(name, style)
            self.members.append(self.boxes[name])
        return self.boxes[name]


def dot_text(picture: Picture) -> str:
    """Return a picture as DOT text."""
    lines = ["digraph {"]
    lines += [f"  {part}{attributes(style)}" for part, style in HEADER.items()]
    lines += _member_lines(_boxes(picture), "  ")
    lines += [_edge_line(edge, picture.nodes) for edge in picture.edges]
    return "\n".join([*lines, "}", ""])


def _boxes(picture: Picture) -> _Box:
    top = _Box()
    of_match = _containers_of_matches(picture.nodes.values())
    for node in picture.nodes.values():
        containers = of_match[node.match] if node.match else node.containers
        box = top
        for path in containers:
            label = " · ".join(word for word in (path, picture.containers[path]) if word)
            box = box.inner(_cluster(path), {"label": label, **BOX})
        if node.match:
            style = {"class": "match", "label": node.template, **MATCH}
            box = box.inner(f"cluster match {node.match}", style)
        box.members.append(replace(node, containers=containers))
    return top


def _containers_of_matches(nodes: Iterable[PictureNode]) -> dict[str, tuple[str, ...]]:
    """Return the containers that all nodes of a match share: the box of the match goes there."""
    common: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        if node.match:
            known = common.get(node.match, node.containers)
            pairs = zip(known, node.containers, strict=False)
            equal = takewhile(lambda pair: pair[0] == pair[1], pairs)
            common[node.match] = tuple(pair[0] for pair in equal)
    return common


def _member_lines(box: _Box, indent: str) -> Iterator[str]:
    for member in box.members:
        if isinstance(member, PictureNode):
            yield f"{indent}{_node_line(member)}"
            continue
        yield f"{indent}subgraph {quote(member.name)} {{"
        yield f"{indent}  graph{attributes(member.style)}"
        yield from _member_lines(member, f"{indent}  ")
        yield f"{indent}}}"


def _node_line(node: PictureNode) -> str:
    style = node_style(
        node.kind, node.group, centre=node.centre, sqnr=node.sqnr, change=node.change
    )
    words = " ".join(word for word in (node.kind, node.change) if word not in ("", "op"))
    named = {"class": words} if words else {}
    return quote(node.name) + attributes({**named, "label": f"<{_label(node)}>", **style})


def _label(node: PictureNode) -> str:
    op, space, literals = (markup(part) for part in node.title.partition(" "))
    small = node.is_pill or node.kind == "stub"
    title = f"{op}{space}{literals}" if small else f"<b>{op}</b>{space}{literals}"
    leaf = _leaf(node)
    if leaf not in ("", node.title):
        title = f"{title} {markup(leaf)}"
    lines = "<br/>".join(markup(line) for line in node.details)
    return f"{title}<br/>{detail(lines)}" if lines else title


def _leaf(node: PictureNode) -> str:
    """Return the module of ``node`` relative to the box that it is drawn in."""
    if node.is_pill or node.kind == "module":
        return ""
    box = node.containers[-1] if node.containers else ""
    return node.scope.removeprefix(box).lstrip("./")


def _edge_line(edge: PictureEdge, nodes: Mapping[str, PictureNode]) -> str:
    style = edge_style(edge.kind, edge.group)
    named = {"class": edge.kind} if edge.kind != "float" else {}
    # Graphviz puts a label right at its edge; the space separates the line from the first letter.
    label = {"label": f" {edge.label}"} if edge.label else {}
    head: dict[str, str] = {}
    if edge.kind == "nested" and nodes[edge.target].containers:
        head["lhead"] = _cluster(nodes[edge.target].containers[0])
    return f"  {quote(edge.source)} -> {quote(edge.target)}" + attributes(
        {**named, **label, **head, **style}
    )


def _cluster(path: str) -> str:
    return f"cluster {path}"

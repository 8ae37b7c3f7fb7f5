"""Write a graph as plain DOT, to be read as text: a line per node, then a line per input.

No fonts, colours or boxes: ``dot.py`` does the styling. Snapshots have this form, so that a line
changes if, and only if, the graph does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from torch.fx import GraphModule

from quantfx.passes.draw.picture import Picture, PictureEdge, PictureNode
from quantfx.passes.draw.reading import read_picture
from quantfx.passes.draw.style import quote


def to_plain_dot(module: GraphModule) -> str:
    """Return ``module`` as DOT text for reviewers, in data order.

    A node shows its operator, dtype and shape, the constants that it reads, the template of its
    match and, if it quantizes, scale and zero point; an edge shows what flows into which argument.
    """
    picture = read_picture(module)
    return "\n".join(["digraph {", *_lines(picture), "}", ""])


def _lines(picture: Picture) -> Iterator[str]:
    into: defaultdict[str, list[PictureEdge]] = defaultdict(list)
    for edge in picture.edges:
        into[edge.target].append(edge)
    for node in picture.nodes.values():
        yield f"  {quote(node.name)} [label={quote(_label(node))}]"
        for edge in into[node.name]:
            yield f"    {quote(edge.source)} -> {quote(edge.target)}{_edge_label(edge)}"


def _label(node: PictureNode) -> str:
    words = [node.title, *node.details]
    if node.qparams:
        words.append(node.qparams)
    if node.match:
        own = node.match == node.name
        words.append(f"match {node.template}" if own else f"match of {node.match}")
    return "; ".join(words)


def _edge_label(edge: PictureEdge) -> str:
    words = [word for word in (edge.label, "" if edge.kind == "float" else edge.kind) if word]
    if edge.group:
        words.append(f"as {edge.group}")
    return f" [label={quote(' '.join(words))}]" if words else ""

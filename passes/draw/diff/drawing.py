"""Draw the difference of two graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch.fx import GraphModule

from quantfx.passes.draw.diff.graph_diff import DiffRow, GraphDiff, diff_rows
from quantfx.passes.draw.diff.operators import read_operators
from quantfx.passes.draw.diff.pair import pair_operators
from quantfx.passes.draw.dot import dot_text
from quantfx.passes.draw.picture import Picture, PictureEdge, PictureNode
from quantfx.passes.draw.reading import read_picture
from quantfx.passes.draw.views import merge

_SHOWN_FIELDS = 4


def diff_dot(
    a: GraphModule, b: GraphModule, rows: Sequence[DiffRow], pairs: Mapping[str, str]
) -> str:
    """Return the second graph, with the vanished operators of the first, as DOT text.

    Args:
        a: The first graph.
        b: The second graph.
        rows: The differences.
        pairs: Names of ``a`` -> names of ``b``.
    """
    picture = _marked(read_picture(b), rows)
    gone = [row.before for row in rows if row.change == "vanished"]
    picture = _with_vanished(picture, read_picture(a), gone, pairs)
    return dot_text(_without_unchanged(picture))


def _marked(picture: Picture, rows: Iterable[DiffRow]) -> Picture:
    nodes = dict(picture.nodes)
    for row in rows:
        if row.after in nodes:
            node = nodes[row.after]
            told = [str(field) for field in row.fields[:_SHOWN_FIELDS]]
            if len(row.fields) > _SHOWN_FIELDS:
                told.append(f"and {len(row.fields) - _SHOWN_FIELDS} more")
            details = (*node.details, *told)
            nodes[row.after] = replace(node, change=row.change, details=details)
    return replace(picture, nodes=nodes)


def _with_vanished(
    picture: Picture, old: Picture, gone: Sequence[str], pairs: Mapping[str, str]
) -> Picture:
    """Add the vanished nodes between the partners of their former neighbours."""
    # The word distinguishes a vanished node from a new node with its name.
    names = {name: f"gone {name}" for name in gone if name in old.nodes}
    drawn = {**{one: other for one, other in pairs.items() if other in picture.nodes}, **names}
    nodes = dict(picture.nodes)
    for name, new in names.items():
        known = tuple(each for each in old.nodes[name].containers if each in picture.containers)
        node = old.nodes[name]
        nodes[new] = replace(
            node, name=new, containers=known, match="", template="", change="vanished"
        )
    edges = [
        PictureEdge(drawn[source], drawn[edge.target], edge.label, "vanished")
        for edge in old.edges
        if edge.target in drawn
        for source in [_through_pills(edge.source, old)]
        if source in drawn and (source in names or edge.target in names)
    ]
    return replace(picture, nodes=nodes, edges=(*picture.edges, *edges))


def _through_pills(name: str, picture: Picture) -> str:
    """Return the operation whose tensor flows through the pills at ``name``."""
    sources = {edge.target: edge.source for edge in picture.edges if edge.kind != "nested"}
    while picture.nodes[name].kind in ("quantize", "observe") and name in sources:
        name = sources[name]
    return name


def _without_unchanged(picture: Picture) -> Picture:
    """Collapse modules in which nothing changed, then runs of operators far from any change."""
    touched = {name for name, node in picture.nodes.items() if node.change}
    near = touched | {
        name
        for edge in picture.edges
        if edge.source in touched or edge.target in touched
        for name in (edge.source, edge.target)
    }
    lively = {box for name in touched for box in picture.nodes[name].containers}
    groups: dict[str, str] = {}
    run = 0
    previous: PictureNode | None = None
    for name, node in picture.nodes.items():
        still = next((box for box in node.containers if box not in lively), "")
        if still:
            groups[name] = still
        elif name not in near and node.kind not in ("input", "output"):
            follows = previous is not None and previous.containers == node.containers
            run += 0 if follows else 1
            groups[name] = f"unchanged {run}"
        previous = node if groups.get(name, "").startswith("unchanged ") else None
    counts = Counter(groups.values())
    single = [name for name, group in groups.items() if counts[group] == 1]
    for name in single:
        del groups[name]
    return merge(picture, groups)


def diff_graphs(
    a: GraphModule,
    b: GraphModule,
    *,
    kernels: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> GraphDiff:
    """Return what appeared, vanished and changed from ``a`` to ``b``.

    Args:
        a: The first graph.
        b: The second graph.
        kernels: The kernel of each site of either graph, if known.
    """
    before, after = (read_operators(g, k) for g, k in zip((a, b), kernels, strict=True))
    pairs = pair_operators(before, after)
    rows = diff_rows(before, after, pairs)
    changed = sum(row.change == "changed" for row in rows)
    draw = partial(diff_dot, a, b, rows, pairs)
    return GraphDiff(rows, same=len(pairs) - changed, draw=draw)

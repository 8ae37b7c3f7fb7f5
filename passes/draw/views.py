"""Smaller drawings of a large graph: modules collapsed into nodes, or a neighbourhood."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quantfx.passes.draw.picture import Picture, PictureEdge, PictureNode
from quantfx.passes.report.compare.tally import decibels
from quantfx.patterns.errors import QuantfxError, unknown_name

_UNCOUNTED = ("input", "output", "constant", "item", "stub")
_NAMED_OPS = 4


def collapse(picture: Picture, depth: int) -> Picture:
    """Draw each module nested deeper than ``depth`` as one node that counts its operations."""
    groups: dict[str, str] = {}
    for name, node in picture.nodes.items():
        if len(node.containers) > depth:
            groups[name] = node.containers[depth]
    return merge(picture, groups)


def fit(picture: Picture, limit: int) -> Picture:
    """Collapse only until at most ``limit`` nodes remain.

    1. Modules, deepest first.
    2. If the top level alone is larger than that, runs of neighbours in canonical order.
    """
    for depth in range(picture.depth, -1, -1):
        view = collapse(picture, depth)
        if len(view.nodes) <= limit:
            return view
    view = collapse(picture, 0)
    names = list(view.nodes)
    run = -(-len(names) // limit)
    groups = {name: f"part {index // run + 1}" for index, name in enumerate(names)}
    return merge(view, groups)


def neighbourhood(picture: Picture, around: str, radius: int) -> Picture:
    """Draw nodes at most ``radius`` operations away from the node or module ``around``.

    Pills do not count; nodes just outside are drawn as stubs.

    Raises:
        QuantfxError: nothing in the picture has that name.
    """
    centre = _find(picture, around)
    inside = _reach(picture, centre, radius)
    edges = [e for e in picture.edges if e.source in inside or e.target in inside]
    touched = {name for edge in edges for name in (edge.source, edge.target)} | inside
    nodes: dict[str, PictureNode] = {}
    for name, node in picture.nodes.items():
        if name in inside:
            nodes[name] = replace(node, centre=name in centre)
        elif name in touched:
            nodes[name] = PictureNode(
                name, "stub", node.title, scope=node.scope, containers=node.containers
            )
    return replace(picture, nodes=nodes, edges=tuple(edges))


def heat_up(picture: Picture, heat: Mapping[str, float]) -> Picture:
    """Draw the nodes that ``heat`` names in the colour of their SQNR.

    Args:
        picture: The whole graph.
        heat: SQNR in dB by node name; nodes that are not drawn are ignored.

    Raises:
        QuantfxError: no node of the picture has any of these names.
    """
    at: dict[str, float] = {}
    for name, sqnr in heat.items():
        # FX names come first: a canonical name may be another node's FX name.
        drawn = picture.aliases.get(name) or ((name,) if name in picture.nodes else ())
        at.update((each, min(sqnr, at.get(each, sqnr))) for each in drawn)
    if heat and not at:
        message = "no node of the graph has a name of 'heat'"
        fix = "draw the graph that was compared: quantfx.draw(result.quantized, ..., heat=...)"
        raise QuantfxError(message, rule="unknown-name", site=next(iter(heat)), fix=fix)
    nodes = {
        name: replace(node, sqnr=at[name], details=(*node.details, decibels(at[name])))
        if name in at
        else node
        for name, node in picture.nodes.items()
    }
    return replace(picture, nodes=nodes)


def _find(picture: Picture, around: str) -> set[str]:
    if around in picture.nodes:
        return {around}
    inner = f"{around}."
    in_module = {
        name
        for name, node in picture.nodes.items()
        if around in node.containers or node.scope == around or node.scope.startswith(inner)
    }
    found = in_module or set(picture.aliases.get(around, ()))
    if not found:
        scopes = [node.scope for node in picture.nodes.values() if node.scope]
        known = dict.fromkeys([*picture.nodes, *picture.containers, *scopes, *picture.aliases])
        raise unknown_name(QuantfxError, "node or module", around, known, of="the graph")
    return found


def _reach(picture: Picture, centre: Iterable[str], radius: int) -> set[str]:
    """Walk edges in both directions, shortest first: entering a pill costs nothing."""
    around: defaultdict[str, list[str]] = defaultdict(list)
    for edge in picture.edges:
        around[edge.source].append(edge.target)
        around[edge.target].append(edge.source)
    distance = dict.fromkeys(centre, 0)
    queue = deque(distance)
    while queue:
        name = queue.popleft()
        for neighbour in around[name]:
            cost = distance[name] + (0 if picture.nodes[neighbour].is_pill else 1)
            if cost <= radius and cost < distance.get(neighbour, radius + 1):
                distance[neighbour] = cost
                (queue.append if cost > distance[name] else queue.appendleft)(neighbour)
    return set(distance)


def merge(picture: Picture, groups: Mapping[str, str]) -> Picture:
    """Draw all nodes of one group as one node, at the position of the first."""
    members: defaultdict[str, list[PictureNode]] = defaultdict(list)
    for name, group in groups.items():
        members[group].append(picture.nodes[name])
    merged = {group: _merge_nodes(picture, group, inner) for group, inner in members.items()}
    # A match that is only partly visible has no box: hidden nodes cannot be inside it.
    broken = {node.match for inner in members.values() for node in inner if node.match}
    nodes: dict[str, PictureNode] = {}
    renamed: dict[str, str] = {}
    for name, node in picture.nodes.items():
        drawn = merged[groups[name]] if name in groups else node
        if drawn.match in broken:
            drawn = replace(drawn, match="", template="")
        nodes.setdefault(drawn.name, drawn)
        renamed[name] = drawn.name
    return replace(picture, nodes=nodes, edges=_merge_edges(picture.edges, renamed, groups))


def _merge_nodes(picture: Picture, group: str, members: Sequence[PictureNode]) -> PictureNode:
    containers = members[0].containers
    outer = containers[: containers.index(group)] if group in containers else containers
    kind = picture.containers.get(group, "")
    details = (kind, _counts(members)) if kind else (_counts(members),)
    known = [node.sqnr for node in members if node.sqnr is not None]
    worst = min(known, default=None)
    if worst is not None:
        details = (*details, f"{decibels(worst)} at least")
    # The slash distinguishes it from an operation with the same name at the top level.
    return PictureNode(
        f"{group}/",
        "module",
        group,
        details=details,
        scope=group,
        containers=outer,
        sqnr=worst,
    )


def _merge_edges(
    edges: Iterable[PictureEdge], renamed: Mapping[str, str], groups: Mapping[str, str]
) -> tuple[PictureEdge, ...]:
    merged: dict[PictureEdge, None] = {}
    for edge in edges:
        source, target = renamed[edge.source], renamed[edge.target]
        if source != target:
            label = "" if edge.target in groups else edge.label
            merged[replace(edge, source=source, target=target, label=label)] = None
    return tuple(merged)


def _counts(nodes: Iterable[PictureNode]) -> str:
    """Return ``12 ops: 4 conv2d, 4 relu, ...`` and the number of pills."""
    ops: Counter[str] = Counter()
    pills: Counter[str] = Counter()
    for node in nodes:
        if node.kind in ("quantize", "observe"):
            pills["q" if node.kind == "quantize" else "observe"] += 1
        elif node.kind == "module":
            ops["module"] += 1
        elif node.kind not in _UNCOUNTED:
            ops[node.title.partition(" ")[0]] += 1
    total = ops.total()
    frequent = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{count} {op}" for op, count in frequent[:_NAMED_OPS]]
    if len(frequent) > _NAMED_OPS:
        words.append("…")
    text = f"{total} op{'' if total == 1 else 's'}: {', '.join(words)}" if total else "0 ops"
    return "; ".join([text, *(f"{count} {pill}" for pill, count in pills.items())])

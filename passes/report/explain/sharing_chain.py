"""Why a tensor of an operator shares its scale with tensors of other operators."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

from quantfx.passes.report.explain.explanation import SharingLink, SharingPart, TensorPart
from quantfx.passes.report.explain.trail import Trail


def sharing_parts(trail: Trail, tensors: Iterable[TensorPart]) -> Iterator[SharingPart]:
    """Yield the group of each tensor, if the group has another member."""
    for tensor in tensors:
        group = trail.groups.get(tensor.group)
        if group is not None:
            links = tuple(SharingLink(a=a, b=b, why=why) for a, b, why in group.links)
            yield SharingPart(
                name=group.name,
                slot=tensor.slot,
                members=group.members,
                chain=_chain(tensor.site, group.name, links),
                links=links,
            )


def _chain(start: str, end: str, links: tuple[SharingLink, ...]) -> tuple[SharingLink, ...]:
    """Return the links that lead from ``start`` to ``end``, each with the nearer site first."""
    around: dict[str, list[SharingLink]] = defaultdict(list)
    for link in links:
        around[link.a].append(link)
        around[link.b].append(SharingLink(a=link.b, b=link.a, why=link.why))
    came: dict[str, SharingLink | None] = {start: None}
    pending = deque([start])
    while pending and end not in came:
        for link in around[pending.popleft()]:
            if link.b not in came:
                came[link.b] = link
                pending.append(link.b)
    chain: list[SharingLink] = []
    step = came.get(end)
    while step is not None:
        chain.append(step)
        step = came[step.a]
    return tuple(reversed(chain))

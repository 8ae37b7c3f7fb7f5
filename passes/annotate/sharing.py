"""Which sites share qparams: union-find over sites, solved after all constraints are known.

The result does not depend on the order in which constraints arrive: sites are ranked by their
position in the model, and the first site of a group represents it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from quantfx.passes.errors import ShareConflict
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import SharedGroup
from quantfx.passes.pipeline.permits import may
from quantfx.passes.quant.spec import Concrete


class Link(NamedTuple):
    """Two sites that share qparams, with the reason."""

    a: Site
    b: Site
    why: str


@dataclass(frozen=True)
class Groups:
    """The solution of the sharing constraints.

    Attributes:
        representative: Site -> first site of its group.
        specs: Representative -> spec of the group; groups that no spec reached are absent.
        links: The links that tie the sites of each group, as a tree.
    """

    representative: Mapping[Site, Site]
    specs: Mapping[Site, Concrete]
    links: tuple[Link, ...] = ()

    def told(self) -> Iterator[SharedGroup]:
        """Yield the groups of two or more sites that have a spec, with the links between sites."""
        members: dict[Site, list[Site]] = {}
        for site, root in self.representative.items():
            members.setdefault(root, []).append(site)
        links: dict[Site, list[tuple[str, str, str]]] = {}
        for a, b, why in self.links:
            links.setdefault(self.representative[a], []).append((str(a), str(b), why))
        for root, tied in links.items():
            if root in self.specs:
                yield SharedGroup(str(root), tuple(map(str, members[root])), tuple(tied))


class Sharing:
    """Collects constraints between sites and solves them.

    Args:
        rank: Position of a site in the model; must be total and not depend on constraints.
    """

    def __init__(self, rank: Callable[[Site], tuple[int, ...]]) -> None:
        self._rank = rank
        self._sites: set[Site] = set()
        self._hard: dict[Site, dict[Site, str]] = {}
        self._flows: set[tuple[Site, Site]] = set()
        self._required: dict[Site, dict[Concrete, str]] = {}

    def require(self, site: Site, spec: Concrete, why: str) -> None:
        """Demand ``spec`` at ``site``."""
        self._sites.add(site)
        self._required.setdefault(site, {}).setdefault(spec, why)

    def same(self, a: Site, b: Site, why: str) -> None:
        """Demand the same qparams at ``a`` and ``b``; symmetric."""
        self._sites |= {a, b}
        self._hard.setdefault(a, {}).setdefault(b, why)
        self._hard.setdefault(b, {}).setdefault(a, why)

    def flows(self, slot: Site, producer: Site) -> None:
        """Record that ``slot`` reads the tensor ``producer``; they share if their specs agree."""
        self._sites |= {slot, producer}
        self._flows.add((slot, producer))

    def solve(self) -> Groups:
        """Return the groups.

        Raises:
            ShareConflict: two specs are demanded in one group; the message gives the whole chain.
        """
        order = sorted(self._sites, key=self._rank)
        union = _Union({site: index for index, site in enumerate(order)})
        links = [
            Link(site, other, why)
            for site in order
            for other, why in self._hard.get(site, {}).items()
            if union.merge(site, other)
        ]
        specs = self._concrete(order, union)
        flows = sorted(self._flows, key=lambda flow: (self._rank(flow[0]), self._rank(flow[1])))
        _adopt(flows, union, specs, {union.root(site) for site in self._hard})
        links += _merge_equal(flows, union, specs)
        representative = {site: union.root(site) for site in order}
        merged = {union.root(root): spec for root, spec in specs.items()}
        return Groups(representative, merged, tuple(links))

    def _concrete(self, order: list[Site], union: _Union) -> dict[Site, Concrete]:
        """Return the spec demanded in each group."""
        specs: dict[Site, Concrete] = {}
        first: dict[Site, Site] = {}
        for site in order:
            for spec in sorted(self._required.get(site, ()), key=repr):
                root = union.root(site)
                if specs.setdefault(root, spec) != spec:
                    message = self._explain(first[root], site, specs[root], spec)
                    raise ShareConflict(message, rule="share-conflict", site=str(site))
                first.setdefault(root, site)
        return specs

    def _explain(self, a: Site, b: Site, spec_a: Concrete, spec_b: Concrete) -> str:
        lines = [
            f"{a} and {b} must share qparams but disagree:",
            f"  {a}: {spec_a}   <- {self._required[a][spec_a]}",
            *(f"  = {site}   ({why})" for site, why in self._path(a, b)),
            f"  {b}: {spec_b}   <- {self._required[b][spec_b]}",
            "give both the same spec, or keep one of the operators on the way in float",
        ]
        return "\n".join(lines)

    def _path(self, a: Site, b: Site) -> Iterator[tuple[Site, str]]:
        """Yield the shortest chain of hard constraints that leads from ``a`` to ``b``."""
        came: dict[Site, Site] = {a: a}
        pending = deque([a])
        while b not in came:
            site = pending.popleft()
            for other in sorted(self._hard.get(site, ()), key=self._rank):
                if other not in came:
                    came[other] = site
                    pending.append(other)
        chain = [b]
        while chain[-1] != a:
            chain.append(came[chain[-1]])
        chain.reverse()
        for previous, site in itertools.pairwise(chain):
            yield site, self._hard[previous][site]


class _Union:
    """Disjoint sets whose root is the member of the smallest index."""

    def __init__(self, index: Mapping[Site, int]) -> None:
        self._index = index
        self._parent = {site: site for site in index}

    def root(self, site: Site) -> Site:
        parent = self._parent
        while parent[site] != site:
            parent[site] = parent[parent[site]]
            site = parent[site]
        return site

    def merge(self, a: Site, b: Site) -> bool:
        """Merge the sets of two sites; return whether the sets were different."""
        first, second = self.root(a), self.root(b)
        if self._index[second] < self._index[first]:
            first, second = second, first
        self._parent[second] = first
        return first != second


def _adopt(
    flows: list[tuple[Site, Site]],
    union: _Union,
    specs: dict[Site, Concrete],
    constrained: set[Site],
) -> None:
    """Give constrained groups without a spec the spec of the nearest neighbour along the flow.

    An unconstrained producer is skipped: it stays float.
    """
    neighbours: dict[Site, list[Site]] = {}
    for slot, producer in flows:
        a, b = union.root(slot), union.root(producer)
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    pending = deque(root for root in neighbours if root in specs)
    while pending:
        root = pending.popleft()
        for other in neighbours[root]:
            if other not in specs and other in constrained:
                specs[other] = specs[root]
                pending.append(other)


def _merge_equal(
    flows: list[tuple[Site, Site]], union: _Union, specs: dict[Site, Concrete]
) -> list[Link]:
    """Merge a slot with its producer, and the readers of one tensor, where specs are equal."""
    links: list[Link] = []
    readers: dict[tuple[Site, Concrete], Site] = {}

    def spec_of(site: Site) -> Concrete | None:
        return specs.get(union.root(site))

    for slot, producer in flows:
        spec = spec_of(slot)
        if spec is None:
            continue
        if spec_of(producer) == spec:
            other, why = producer, f"{slot} reads {producer}, with an equal spec"
        else:
            other = readers.setdefault((producer, spec), slot)
            why = f"both read {producer}, with equal specs"
        if union.root(slot) != union.root(other) and may("share", site=slot):
            union.merge(slot, other)
            links.append(Link(slot, other, why))
    return links

"""The notes that lowering leaves on kernel calls: which site each call stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site, all_graphs

META_KEY = "quantfx_lowered"
REGION_KEY = "quantfx_region"
# The only meta entry that torch carries through Dynamo and AOTAutograd to Inductor's passes.
CUSTOM_KEY = "custom"
_SITE = "quantfx_site"
_SITES = "quantfx_sites"


@dataclass(frozen=True)
class Lowered:
    """One site that became a kernel call.

    Attributes:
        site: The anchor's place in the q/dq graph.
        template: Label of the matched variant, e.g. ``conv2d_unary_q``.
        kernel: The kernel that computes it, e.g. ``qconv_pointwise``.
        covers: Nodes of the q/dq graph that the call replaces, in graph order; empty if that graph
            does not show what the call computes.
        output: The covered node whose value the call yields.
    """

    site: Site
    template: str
    kernel: str
    covers: tuple[str, ...]
    output: str


def lowered_of(node: Node) -> Lowered | None:
    """Return what lowering wrote on ``node``, if anything."""
    value = node.meta.get(META_KEY)
    return value if isinstance(value, Lowered) else None


def set_lowered(node: Node, lowered: Lowered) -> None:
    """Write ``lowered`` on ``node``, which yields the site's value."""
    node.meta[META_KEY] = lowered


def region_of(node: Node) -> tuple[Lowered, ...]:
    """Return the sites that the call of a region stands for; nothing for other nodes."""
    value: tuple[Lowered, ...] = node.meta.get(REGION_KEY, ())
    return value


def set_region(node: Node, sites: tuple[Lowered, ...]) -> None:
    """Write on a region's call what became of each of its sites."""
    node.meta[REGION_KEY] = sites


def set_kernels(node: Node, sites: tuple[Lowered, ...]) -> None:
    """Write the kernel of each site on a region's call, where compilers keep it."""
    kernels = tuple((each.site, each.kernel) for each in sites)
    node.meta[CUSTOM_KEY] = {**node.meta.get(CUSTOM_KEY, {}), _SITES: kernels}


def kernels_of(node: Node) -> tuple[tuple[Site, str], ...]:
    """Return each site of a region's call with its kernel, also in a retraced graph."""
    value: tuple[tuple[Site, str], ...] = node.meta.get(CUSTOM_KEY, {}).get(_SITES, ())
    return value


def set_site(node: Node, site: Site) -> None:
    """Record, where compilers keep it, that ``node`` was made for ``site``."""
    node.meta[CUSTOM_KEY] = {**node.meta.get(CUSTOM_KEY, {}), _SITE: site}


def carry_site(source: Node, target: Node) -> None:
    """Record that ``target`` was made for the same site as ``source``."""
    if CUSTOM_KEY in source.meta:
        target.meta[CUSTOM_KEY] = dict(source.meta[CUSTOM_KEY])


def site_of(node: Node) -> Site | None:
    """Return the site that ``node`` was made for, also in a graph that a compiler retraced."""
    value = node.meta.get(CUSTOM_KEY, {}).get(_SITE)
    return value if isinstance(value, Site) else None


def lowered_nodes(module: GraphModule) -> Iterator[tuple[Node, Lowered]]:
    """Yield every kernel call of ``module`` with what it stands for, in graph order."""
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            lowered = lowered_of(node)
            if lowered is not None:
                yield node, lowered
            yield from ((node, each) for each in region_of(node))

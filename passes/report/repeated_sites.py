"""Planned sites that compute what an earlier one does: a compiler merges them into one."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.value_numbers import value_numbers
from quantfx.passes.report.contract import planned_matches


def repeated_sites(module: GraphModule) -> frozenset[Site]:
    """Return the planned sites of a q/dq graph that repeat the value of an earlier one."""
    repeated = {path: _repeated(graph_module) for path, graph_module in all_graphs(module)}
    return frozenset(
        match.site
        for match in planned_matches(module)
        if match.site.node in repeated[match.site.graph]
    )


def _repeated(module: GraphModule) -> set[str]:
    found: set[str] = set()
    seen: set[int] = set()
    for node, number in value_numbers(module).items():
        if number in seen:
            found.add(node.name)
        seen.add(number)
    return found

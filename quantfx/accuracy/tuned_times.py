"""The tuner's times of sites: the time of each region, shared among its sites by MACs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch.fx import GraphModule

from quantfx.accuracy.cost import Times
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import captured_layout, region_key
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.tuned import routes_for
from quantfx.passes.graph.graphs import Site, all_graphs, module_calls


def tuned_times(lowered: GraphModule, macs: Mapping[str, int]) -> dict[str, Times]:
    """Return the times of sites whose region ``Result.tune`` measured.

    Args:
        lowered: Lowered graph with every site int8.
        macs: MACs of each site, by name.
    """
    known = routes_for(torch.get_num_threads())
    found: dict[str, Times] = {}
    for path, graph in all_graphs(lowered) if known else ():
        for node, region in module_calls(graph, Region):
            with contextlib.suppress(Untranslatable):
                layouts = [captured_layout(each) for each in node.all_input_nodes]
                times = known.get(region_key(region.graph, layouts))
                names = [str(Site(path, each.name)) for each in region.graph.graph.nodes]
                sites = {name: macs[name] for name in names if macs.get(name)}
                if times is not None:
                    int8 = min(times.plan, times.operators or times.plan)
                    whole = sum(sites.values())
                    found |= {
                        name: Times(int8 * own / whole, times.floats * own / whole)
                        for name, own in sites.items()
                    }
    return found

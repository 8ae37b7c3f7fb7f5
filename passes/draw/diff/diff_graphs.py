"""Compare two graphs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch.fx import GraphModule

from quantfx.passes.draw.diff.drawing import diff_dot
from quantfx.passes.draw.diff.graph_diff import GraphDiff, diff_rows
from quantfx.passes.draw.diff.operators import read_operators
from quantfx.passes.draw.diff.pair import pair_operators


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

"""Draw a graph module into a file, collapsed until it is readable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.fx import GraphModule

from quantfx.passes.draw.dot import to_dot, to_overview_dot
from quantfx.tools.drawing.render import render

# More nodes than this are slow to lay out and hard to read.
READABLE_NODES = 300


def draw(
    module: GraphModule,
    path: str | Path,
    *,
    depth: int | None = None,
    around: str | None = None,
    heat: Mapping[str, float] | None = None,
) -> Path:
    """Draw ``module`` into ``path`` (``.svg``, ``.png`` or ``.dot``) and return the path written.

    A drawing of more than 300 nodes is collapsed by module, unless ``depth`` or ``around`` says
    what to show.

    Args:
        module: The graph to draw.
        path: The file; without Graphviz's ``dot`` program the text goes to ``<path>.dot``.
        depth: Draw modules nested deeper than this as one node each.
        around: Draw only the neighbourhood of this node or module.
        heat: SQNR in dB by the name of a node, which colours it: see ``Comparison.heat``.

    Raises:
        QuantfxError: ``around`` names nothing, or the picture cannot be rendered.
    """
    if depth is None and around is None:
        return render(to_overview_dot(module, limit=READABLE_NODES, heat=heat), path)
    return render(to_dot(module, depth=depth, around=around, heat=heat), path)

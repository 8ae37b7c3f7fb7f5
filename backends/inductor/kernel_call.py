"""What a compiled graph is known to call."""

from __future__ import annotations

from typing import NamedTuple

from quantfx.passes.graph.graphs import Site


class KernelCall(NamedTuple):
    """One call of a kernel in a compiled graph."""

    site: Site
    kernel: str

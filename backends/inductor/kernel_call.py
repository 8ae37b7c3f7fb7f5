"""The kernel calls of a compiled graph."""

from __future__ import annotations

from typing import NamedTuple

from quantfx.passes.graph.graphs import Site


class KernelCall(NamedTuple):
    """A kernel call in a compiled graph."""

    site: Site
    kernel: str

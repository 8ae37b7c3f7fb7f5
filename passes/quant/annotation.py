"""The annotation that annotate passes write on a node: immutable, without references to nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Graph, Node

from quantfx.passes.graph.graphs import Site
from quantfx.passes.quant.spec import Concrete, Spec
from quantfx.patterns.template import Mode, Reach

META_KEY = "quantfx"


@dataclass(frozen=True)
class Annotation:
    """The part of one match that concerns one node.

    Attributes:
        template: Label of the matched template variant, e.g. ``conv2d_add_relu``.
        match: Name of the match's anchor node; the same on every node of the match.
        kind: Name of the anchor's operator, by which reports count.
        kernel: Kernel that the template is lowered to; empty for ``fused`` and ``layout``.
        reach: How the template is lowered.
        inputs: ``(slot, spec)`` of every quantized edge into this node.
        output: Spec of the node's result, None to leave it to the consumers.
        groups: ``(slot, name of its sharing group)``, written by the share pass; a group has the
            name of its first site.
        shares: ``(slot, site)``: slots ("" is the output) and the sites they share qparams with.
        implicit: Whether inputs also share qparams with sites of the same tensor and equal specs.
        is_output: Whether this node's result leaves the match.
        pending: Whether the match holds only if its inputs turn out to be quantized.
        mode: Mode of the template.
        packs: ``(role, spec)`` of each weight that the kernel quantizes itself.
    """

    template: str
    match: str
    kind: str
    kernel: str
    reach: Reach
    inputs: tuple[tuple[str, Spec], ...] = ()
    output: Spec | None = None
    shares: tuple[tuple[str, Site], ...] = ()
    implicit: bool = True
    groups: tuple[tuple[str, str], ...] = ()
    is_output: bool = False
    pending: bool = False
    mode: Mode = "static"
    packs: tuple[tuple[str, Concrete], ...] = ()


def annotation_of(node: Node) -> Annotation | None:
    """Return what an annotate pass wrote on ``node``, if anything."""
    value = node.meta.get(META_KEY)
    return value if isinstance(value, Annotation) else None


def annotated(graph: Graph) -> Iterator[tuple[Node, Annotation]]:
    """Yield the nodes of ``graph`` that have an annotation, with the annotation."""
    for node in graph.nodes:
        annotation = annotation_of(node)
        if annotation is not None:
            yield node, annotation


def set_annotation(node: Node, annotation: Annotation | None) -> None:
    """Write ``annotation`` on ``node``; None removes it."""
    if annotation is None:
        node.meta.pop(META_KEY, None)
    else:
        node.meta[META_KEY] = annotation


# Meta key on the q nodes of one sharing group; equal qparams alone may be a coincidence.
GROUP_KEY = "quantfx_group"

# Meta key that smoothing writes on a linear: the divisor of its input, a tensor ``(channels,)``.
DIVISOR_KEY = "quantfx_divisor"

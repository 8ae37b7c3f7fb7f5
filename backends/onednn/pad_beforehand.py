"""Pad the input of a convolution where its kernel cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node

from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.editor import Editor
from quantfx.patterns.schema import resolve_op

_PAD = resolve_op("aten.constant_pad_nd.default")


def pad_beforehand(
    x: Node, zero: Any, geometry: Geometry, editor: Editor, before: Node
) -> tuple[Node, Geometry]:
    """Return ``x`` padded as ``geometry`` asks for, and the geometry without its padding.

    Args:
        x: What the convolution reads.
        zero: What stands for 0.0 in ``x``.
        geometry: How the convolution moves over ``x``.
        editor: Of the graph.
        before: Where to write.
    """
    padded = editor.call(_PAD, (x, geometry.ends, zero), like=x, before=before)
    return padded, replace(geometry, padding=((0, 0),) * len(geometry.padding))

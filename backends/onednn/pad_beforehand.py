"""Pad the input of a convolution if its kernel cannot."""

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
    """Return ``x`` padded by ``geometry``, and the geometry without padding.

    Args:
        x: The input of the convolution.
        zero: The value for 0.0 in ``x``.
        geometry: Geometry of the convolution.
        editor: Editor of the graph.
        before: The node to write before.
    """
    padded = editor.call(_PAD, (x, geometry.ends, zero), like=x, before=before)
    return padded, replace(geometry, padding=((0, 0),) * len(geometry.padding))

"""Scale weights by the batch norm behind them in training, in PT2E's spelling."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.layers.scaled_layer import rescale
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.schema import argument_value, resolve_op

_PATTERNS = load("qat_pt2e").group("fuse-conv-bn")
_ADD = resolve_op("aten.add.Tensor")
_SQRT = resolve_op("aten.sqrt.default")
_DIV = resolve_op("aten.div.Tensor")
_RECIPROCAL = resolve_op("aten.reciprocal.default")
_EQ = resolve_op("aten.eq.Scalar")
_MASKED_FILL = resolve_op("aten.masked_fill.Scalar")
_ZEROS_LIKE = resolve_op("aten.zeros_like.default")


class FuseConvBn(GraphPass):
    """``norm(conv(x, w, b)) -> norm(conv(x, w * s, 0) / s + b)``, ``s = gamma / sqrt(var + eps)``.

    This is the graph that PT2E users and quantizers know, but with each batch norm's own eps and
    momentum. An s of 0 is replaced by 1: no result is divided by 0, and a gamma that starts at 0,
    as in a residual branch, gets its gradient.
    """

    name = "fuse-conv-bn"
    counts = "fused"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every match."""
        fused = 0
        for match in _PATTERNS.matcher().run(editor.graph):
            _fuse(editor, match)
            fused += 1
        return fused


def _fuse(editor: Editor, match: Match) -> None:
    conv, norm = match.nodes["conv"], match.nodes["bn"]

    def call(target: object, *args: object) -> Node:
        return editor.call(target, args, like=norm, before=conv)  # type: ignore[arg-type]  # overloads

    shifted = call(_ADD, argument_value(norm, "running_var"), argument_value(norm, "eps"))
    deviation, gamma = call(_SQRT, shifted), argument_value(norm, "weight")
    scale = call(_RECIPROCAL, deviation) if gamma is None else call(_DIV, gamma, deviation)
    divisor = call(_MASKED_FILL, scale, call(_EQ, scale, 0), 1.0)
    bias = argument_value(conv, "bias")
    values = editor.stored(gamma)
    if values is not None and not bool(values.all()):
        scale = divisor
    zeros = None if bias is None else call(_ZEROS_LIKE, bias)
    rescale(editor, conv, norm, (scale, divisor), bias=zeros, keep_dtype=False)

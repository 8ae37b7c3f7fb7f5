"""Fold stored factors and summands after a convolution or linear into its weight and bias."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.batch_norm import output_axis, scale_channels, set_bias
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.schema import argument_value, resolve_op, set_argument

_PATTERNS = load("fold").group("fold-scale")
_MULS = (resolve_op("aten.mul.Tensor"), resolve_op("aten.mul_.Tensor"))


class FoldScales(GraphPass):
    """``conv(x, w, b) * s -> conv(x, w * s, b * s)``, ``conv(x, w, b) + t -> conv(x, w, b + t)``.

    s and t have one value for each output channel. Computes in float64 and skips graphs that train,
    like ``fold-batch-norm``. A weight that is also an embedding table is not scaled, so it stays
    shared.
    """

    name = "fold-scales"
    counts = "folded"
    in_training = False
    optional = True

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Fold until no layer is followed by a foldable operator."""
        written = overwritten(editor.graph)
        folded = 0
        while found := _fold_each(editor, written):
            folded += found
        if folded:
            editor.drop_unused_attributes()
        return folded


def _fold_each(editor: Editor, written: Collection[Node]) -> int:
    """Fold the first operator after every layer; return how many were folded."""
    folded = 0
    for match in _PATTERNS.matcher().run(editor.graph):
        given = [match.roles[role] for role in ("w", "b", "s")]
        values = _per_channel(editor, match)
        if values is None or any(node in written for node in given):
            continue
        is_table = match.nodes["after"].target in _MULS and _is_table(editor, match)
        site = Site(editor.path, match.nodes["after"].name)  # a layer may be followed by several
        if not is_table and may(FoldScales.name, match.label, site):
            editor.remark("applied", match.nodes["after"].name, f"into {match.anchor.name}")
            _fold(editor, match, values)
            folded += 1
    return folded


def _is_table(editor: Editor, match: Match) -> bool:
    """Whether anything but such layers reads the weight, e.g. an embedding tied to a head."""
    weight = editor.stored(match.roles["w"])
    nodes = editor.graph.find_nodes(op="get_attr")
    readers = [user for node in nodes if editor.stored(node) is weight for user in node.users]
    return any(reader.target != match.anchor.target for reader in readers)


def _per_channel(editor: Editor, match: Match) -> Tensor | None:
    """Return one value for each output channel; None for other shapes, or if dtypes differ."""
    layer, weight = match.anchor, editor.stored(match.roles["w"])
    values = editor.stored(match.roles["s"])
    result = layer.meta.get("val")
    if weight is None or values is None or not isinstance(result, Tensor):
        return None
    axis = -1 if match.template.name == "linear_scale" else 1 - result.dim()
    if values.dim() > result.dim() or values.dtype != weight.dtype:
        return None
    sizes = dict(zip(range(-values.dim(), 0), values.shape, strict=True))
    if any(size != 1 for place, size in sizes.items() if place != axis):
        return None
    if weight.dim() < 2:
        return None
    groups = int(argument_value(layer, "groups")) if output_axis(layer) else 1
    channels = weight.shape[output_axis(layer)] * groups
    if values.numel() not in (1, channels):  # the result of a single channel is repeated
        return None
    return values.detach().double().flatten().expand(channels).clone()


def _fold(editor: Editor, match: Match, values: Tensor) -> None:
    layer, after, bias_node = match.anchor, match.nodes["after"], match.roles["b"]
    weight_node = match.roles["w"]
    weight, bias = editor.stored(weight_node), editor.stored(bias_node)
    if not isinstance(weight_node, Node) or weight is None:
        raise TypeError(f"{layer.name} has no weight")
    shift = torch.zeros_like(values) if bias is None else bias.detach().double()
    if after.target in _MULS:
        scaled = scale_channels(weight.detach().double(), values, layer).to(weight.dtype)
        set_argument(layer, "weight", editor.changed_constant(weight_node, scaled, before=layer))
        shift = shift * values
    else:
        shift = shift + values
    if bias is not None or after.target not in _MULS:
        old = bias_node if isinstance(bias_node, Node) else None
        set_bias(editor, layer, old, shift.to(weight.dtype), weight_node)
    editor.replace(after, layer)

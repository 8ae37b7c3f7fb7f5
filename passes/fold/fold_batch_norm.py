"""Fold batch norm in eval mode into the weights of the convolution or linear before it."""

from __future__ import annotations

from torch.fx import Node

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.batch_norm import scale_channels, set_bias, statistics_of
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.schema import set_argument

_PATTERNS = load("fold").group("fold-batch-norm")


class FoldBatchNorm(GraphPass):
    """``batch_norm(conv(x, w, b)) -> conv(x, w * s, (b - mean) * s + beta)``; a linear alike.

    s = gamma / sqrt(var + eps), in float64 (Jacob et al. 2018, section 3.2). The folded weights are
    new constants, so a weight that several convolutions share is folded separately for each. A
    graph that trains is left unchanged: folding removes parameters.
    """

    name = "fold-batch-norm"
    counts = "folded"
    in_training = False
    optional = True
    provides = frozenset({"batch-norm-folded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Fold every match of the fold templates."""
        written = overwritten(editor.graph)
        folded = 0
        for match in _PATTERNS.matcher().run(editor.graph):
            norm = match.nodes["bn"].name
            changing = [n for n in _tensors(match) if n in written]
            if changing:
                message = f"{changing[0].name} is overwritten by {written[changing[0]].name}"
                editor.remark("missed", norm, message)
                continue
            if not may(self.name, match.label, Site(editor.path, match.anchor.name)):
                editor.remark("missed", norm, LEFT_FLOAT)
                continue
            editor.remark("applied", norm, f"into {match.anchor.name}")
            _fold(editor, match)
            folded += 1
        if folded:
            editor.drop_unused_attributes()
        return folded


def _tensors(match: Match) -> list[Node]:
    """Return the stored tensors that the fold reads."""
    roles = ("w", "b", "gamma", "beta", "mean", "var")
    return [node for role in roles if isinstance(node := match.roles[role], Node)]


def _fold(editor: Editor, match: Match) -> None:
    layer, norm = match.nodes["layer"], match.nodes["bn"]
    weight_node, bias_node = match.roles["w"], match.roles["b"]
    weight = editor.stored(weight_node)
    if not isinstance(weight_node, Node) or weight is None:
        raise TypeError(f"{layer.name} has no weight")
    statistics = statistics_of(editor, norm)
    bias = statistics.fold_bias(editor.stored(bias_node)).to(weight.dtype)
    folded = scale_channels(weight.detach().double(), statistics.scale, layer).to(weight.dtype)
    set_argument(layer, "weight", editor.changed_constant(weight_node, folded, before=layer))
    old = bias_node if isinstance(bias_node, Node) else None
    set_bias(editor, layer, old, bias.detach(), weight_node)
    layer.meta["val"] = norm.meta.get("val", layer.meta.get("val"))
    editor.replace(norm, layer)

"""Fold batch norm in eval mode into the weights of the convolution or linear before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.aliasing import overwritten
from quantfx.passes.base import Context, Pass, PassResult, Remark
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs, attribute
from quantfx.patterns.loader import load
from quantfx.patterns.match import Bound, Match
from quantfx.patterns.schema import argument_value, set_argument

_PATTERNS = load("fold").group("fold-batch-norm")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """``batch_norm(conv(x, w, b)) -> conv(x, w * s, (b - mean) * s + beta)``; a linear alike.

    s = gamma / sqrt(var + eps), in float64 (Jacob et al. 2018, section 3.2). The folded weights
    are new constants, so a weight that several convolutions share is folded for each on its own.
    """

    name: ClassVar[str] = "fold-batch-norm"
    provides: ClassVar[frozenset[str]] = frozenset({"batch-norm-folded"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Fold every match of the fold templates."""
        remarks: list[Remark] = []
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            written = overwritten(graph_module.graph)
            for match in _PATTERNS.matcher().run(graph_module.graph):
                changing = [n for n in _tensors(match) if n in written]
                if changing:
                    message = f"{changing[0].name} is overwritten by {written[changing[0]].name}"
                    remarks.append(Remark("missed", path, match.nodes["bn"].name, message))
                    continue
                remarks.append(
                    Remark("applied", path, match.nodes["bn"].name, f"into {match.anchor.name}")
                )
                _fold(editor, match)
            if editor.edits:
                editor.drop_unused_attributes()
        folded = sum(remark.kind == "applied" for remark in remarks)
        return PassResult(folded > 0, tuple(remarks), {"folded": folded})


def _tensors(match: Match) -> list[Node]:
    """Return the stored tensors the fold would bake in."""
    roles = ("w", "b", "gamma", "beta", "mean", "var")
    return [node for role in roles if isinstance(node := match.roles[role], Node)]


def _fold(editor: Editor, match: Match) -> None:
    conv, norm = match.nodes["layer"], match.nodes["bn"]
    weight_node = match.roles["w"]
    if not isinstance(weight_node, Node):
        raise TypeError(f"{conv.name} has no weight")
    weight, bias, gamma, beta, mean, var = (
        _value(editor.module, match, role) for role in ("w", "b", "gamma", "beta", "mean", "var")
    )
    if weight is None or mean is None or var is None:
        raise TypeError(f"{norm.name} has no statistics")
    scale = (var.double() + argument_value(norm, "eps")).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() if bias is None else bias.double() - mean.double()
    shift = shift * scale if beta is None else shift * scale + beta.double()
    folded = _scaled(weight.double(), scale, conv).to(weight.dtype)
    new_weight = editor.changed_constant(weight_node, folded, before=conv)
    set_argument(conv, "weight", new_weight)
    _set_bias(editor, conv, match.roles["b"], shift.to(weight.dtype), weight_node)
    conv.meta["val"] = norm.meta.get("val", conv.meta.get("val"))
    editor.replace(norm, conv)


def _scaled(weight: Tensor, scale: Tensor, layer: Node) -> Tensor:
    """Scale each output channel.

    Args:
        weight: ``(out, in / groups, *kernel)``; ``(in, out / groups, *kernel)`` if transposed.
        scale: ``(out,)``.
        layer: Says which of the two it is.
    """
    kernel = [1] * (weight.dim() - 2)
    if not str(layer.target).startswith("aten.conv_transpose"):
        return weight * scale.reshape(-1, 1, *kernel)
    groups = argument_value(layer, "groups")
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, *kernel)).reshape(weight.shape)


def _set_bias(editor: Editor, conv: Node, old: Bound, value: Tensor, weight: Node) -> None:
    """Give ``conv`` the bias ``value``; positionally where it had none, as torch.export does."""
    if isinstance(old, Node):
        set_argument(conv, "bias", editor.changed_constant(old, value, before=conv))
        return
    owner = str(weight.target).rpartition(".")[0]
    target = f"{owner}.bias" if owner else "bias"
    bias = editor.constant(target, value, like=weight, before=conv)
    if "bias" in conv.kwargs or len(conv.args) > 2:
        set_argument(conv, "bias", bias)
    else:
        conv.args = (*conv.args, bias)


def _value(module: GraphModule, match: Match, role: str) -> Tensor | None:
    node = match.roles[role]
    if not isinstance(node, Node):
        return None
    value = attribute(module, str(node.target))
    return value.detach() if isinstance(value, torch.Tensor) else None

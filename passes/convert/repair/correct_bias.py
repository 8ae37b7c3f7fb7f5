"""Take the mean error of rounded weights out of the bias behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.convert.repair.repairable import RepairableLayer, repairable_layers
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may
from quantfx.patterns.schema import argument_value, set_argument


@dataclass(frozen=True)
class CorrectBias(GraphPass):
    """``conv(x, w, b) -> conv(x, w, b - (w_q - w) E[x])``.

    Rounding errors of weights do not cancel where inputs are positive, as behind a ReLU: each
    output channel is off by a constant, which the mean of the inputs tells (Nagel et al. 2019,
    data-free quantization, arXiv 1906.04721, section 4.2). Each channel whose mean error would grow
    on inputs that the mean was not taken of keeps its bias.
    """

    name: ClassVar[str] = "correct-bias"
    counts: ClassVar[str] = "corrected"
    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    keeps_float: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    needs_statistics: ClassVar[bool] = True

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Correct each layer that statistics tell of."""
        corrected = 0
        for layer in repairable_layers(editor, context, self.name):
            site = Site(editor.path, layer.node.name)
            bias = argument_value(layer.node, "bias")
            if isinstance(bias, Node) and editor.stored(bias) is None:
                message = "its bias is computed: not corrected"
                editor.remark("missed", layer.node.name, message, str(layer.node.target))
            elif may(self.name, layer.annotation.template, str(site)):
                corrected += _correct(editor, layer, bias)
        return corrected


def _correct(editor: Editor, layer: RepairableLayer, bias: Node | None) -> bool:
    with torch.no_grad():
        error = layer.values(layer.nearest) - layer.original
        shift = layer.inputs.mean_output(error)
        held = layer.inputs.held_outputs(error).mean(1)
        better = (held - shift).abs() < held.abs()
        shift = torch.where(better, shift, 0.0).float()
    if not bool(better.any()):
        message = "its bias stays: no mean error is less on held-out inputs"
        editor.remark("missed", layer.node.name, message, str(layer.node.target))
        return False
    stored = editor.stored(bias)
    if bias is None or stored is None:
        name = f"{layer.node.name}_bias"
        made = editor.constant(name, -shift, like=layer.node, before=layer.node)
        set_argument(layer.node, "bias", made)
    else:
        changed = editor.changed_constant(bias, _minus(stored, shift), before=layer.node)
        set_argument(layer.node, "bias", changed)
    message = f"{int(better.sum())} of {len(better)} channels"
    editor.remark("applied", layer.node.name, message)
    return True


def _minus(bias: Tensor, shift: Tensor) -> Tensor:
    return (bias.detach().double() - shift.double()).to(bias)

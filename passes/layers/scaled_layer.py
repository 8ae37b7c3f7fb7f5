"""A convolution or linear in training whose weight is scaled as its batch norm will scale it.

``norm(layer(x, w, b)) -> norm(layer(x, w * s) / s + b)``. ``w * s`` is fake-quantized: it is the
weight at inference, once the batch norm is folded (Jacob et al. 2018, section 3.2, with the running
variance instead of the batch variance).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.batch_norm import output_axis
from quantfx.passes.graph.editor import Editor
from quantfx.passes.layers.saved_flags import SavedFlags
from quantfx.patterns.schema import argument_value, resolve_op, set_argument

KEY = "quantfx_scaled_layer"
_RESHAPE = resolve_op("aten.reshape.default")
_MUL = resolve_op("aten.mul.Tensor")
_DIV = resolve_op("aten.div.Tensor")
_ADD = resolve_op("aten.add.Tensor")
_TYPE_AS = resolve_op("aten.type_as.default")


class BatchNormScale(SavedFlags):
    """``gamma / sqrt(var + eps)``: training scales a weight by it before rounding.

    The layer's result is divided by the same scale. Per channel the two cancel except for rounding,
    so no gradient flows through them: it would be the gradient of the rounding error only.

    Attributes:
        quantizing: While False, nothing is rounded and the scale is 1: the graph then computes
            exactly what the float model computes.
    """

    saved = ("quantizing",)

    def __init__(self) -> None:
        super().__init__()
        self.quantizing = True

    @torch.no_grad()
    def forward(self, gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
        """Return the scale, shape ``(channels,)``, in the dtype of ``var``.

        A scale of 0 (gamma of a residual branch often starts at 0) counts as 1: a product with 0
        cannot be divided back, and gamma would never get a gradient.
        """
        if not self.quantizing:
            return torch.ones_like(var)
        scale = raw_scale(gamma, var, eps)
        return scale.masked_fill(scale == 0, 1.0)


def raw_scale(gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
    """Return ``gamma / sqrt(var + eps)`` in the dtype of ``var``, shape ``(channels,)``."""
    deviation = torch.sqrt(var + eps)
    return deviation.reciprocal() if gamma is None else gamma / deviation


@dataclass(frozen=True)
class ScaledLayer:
    """Names of the nodes around a scaled layer, kept in its node's meta.

    Attributes:
        weight: The scaled weight.
        result: The result, scaled back and with its bias; the batch norm reads it.
        norm: The batch norm.
        bias: The constant that is added to the result; empty if there is none.
    """

    weight: str
    result: str
    norm: str
    bias: str


def scaled_layer_of(node: Node) -> ScaledLayer | None:
    """Return the note on ``node``, if it is a scaled layer."""
    value = node.meta.get(KEY)
    return value if isinstance(value, ScaledLayer) else None


def scale_layer(editor: Editor, layer: Node, norm: Node, module: BatchNormScale) -> None:
    """Rewrite ``norm(layer(x, w, b))`` in training.

    Args:
        editor: Editor of their graph.
        layer: The layer; only ``norm`` reads it, and its weight and bias are constants.
        norm: The batch norm, with running statistics.
        module: Computes the scale; one module for all layers of a graph.
    """
    names = ("weight", "running_var", "eps")
    args = tuple(argument_value(norm, name) for name in names)
    val = argument_value(norm, "running_var").meta.get("val")
    name = editor.name_of(module, "batch_norm_scale")
    scale = editor.call_module(name, module, *args, before=layer, like=norm, val=val)
    rescale(editor, layer, norm, (scale, scale), bias=None, keep_dtype=True)


def rescale(
    editor: Editor,
    layer: Node,
    norm: Node,
    scales: tuple[Node, Node],
    *,
    bias: Node | None,
    keep_dtype: bool,
) -> None:
    """Multiply the weight of ``layer`` by a scale, and divide its result by a scale.

    Args:
        editor: Editor of their graph.
        layer: The layer; only ``norm`` reads it.
        norm: The batch norm after it.
        scales: ``(channels,)`` each, for the weight and for the result, computed before ``layer``.
        bias: Replaces the layer's bias, which is added to the scaled result instead.
        keep_dtype: Whether to cast the batch norm's input to the dtype of the layer's result,
            which under autocast is narrower than the scale's dtype.
    """
    weight, old_bias = argument_value(layer, "weight"), argument_value(layer, "bias")
    dims = weight.meta["val"].dim()
    along_weight = [-1 if axis == output_axis(layer) else 1 for axis in range(dims)]
    along_result = [-1 if axis == 1 else 1 for axis in range(layer.meta["val"].dim())]

    def reshape(value: Node, shape: list[int], before: Node) -> Node:
        return editor.call(_RESHAPE, (value, shape), like=norm, before=before)

    by_weight = reshape(scales[0], along_weight, layer)
    scaled = editor.call(_MUL, (weight, by_weight), before=layer, name="scaled_weight")
    set_argument(layer, "weight", scaled)
    if old_bias is not None:
        set_argument(layer, "bias", bias)
    by_result = reshape(scales[1], along_result, norm)
    result = editor.call(_DIV, (layer, by_result), like=layer, before=norm, name="unscaled_result")
    if old_bias is not None:
        added = reshape(old_bias, along_result, norm)
        result = editor.call(_ADD, (result, added), like=layer, before=norm)
    if keep_dtype:
        result = editor.call(_TYPE_AS, (result, layer), like=layer, before=norm)
    set_argument(norm, "input", result)
    layer.meta[KEY] = ScaledLayer(
        scaled.name, result.name, norm.name, "" if old_bias is None else old_bias.name
    )
    editor.edits += 1

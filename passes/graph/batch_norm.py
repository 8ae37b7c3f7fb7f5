"""The arithmetic of batch norm in evaluation, a scale and a shift per channel; its counter."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.patterns.schema import argument_value, set_argument

COUNTS = torch.ops.aten.add_.Tensor


@dataclass(frozen=True)
class NormStatistics:
    """The values that a batch norm with running statistics computes with.

    Attributes:
        mean: ``(channels,)``.
        var: ``(channels,)``.
        gamma: ``(channels,)``, None for 1.
        beta: ``(channels,)``, None for 0.
        eps: Added to the variance.
    """

    mean: Tensor
    var: Tensor
    _: KW_ONLY
    gamma: Tensor | None
    beta: Tensor | None
    eps: float

    @property
    def scale(self) -> Tensor:
        """``gamma / sqrt(var + eps)`` in float64 (Jacob et al. 2018, section 3.2)."""
        scale = (self.var.double() + self.eps).rsqrt()
        return scale if self.gamma is None else scale * self.gamma.double()

    def fold_bias(self, bias: Tensor | None) -> Tensor:
        """Return ``(bias - mean) * scale + beta`` in float64."""
        shift = -self.mean.double() if bias is None else bias.double() - self.mean.double()
        shift = shift * self.scale
        return shift if self.beta is None else shift + self.beta.double()

    def single_precision(self, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scale and folded bias, computed with ``rsqrt`` in the dtype of the statistics.

        The order of operations is the same as in ``torch.nn.utils.fuse_conv_bn_weights``.
        """
        gamma = torch.ones_like(self.var) if self.gamma is None else self.gamma
        beta = torch.zeros_like(self.mean) if self.beta is None else self.beta
        shift = torch.zeros_like(self.mean) if bias is None else bias
        reciprocal = torch.rsqrt(self.var + self.eps)
        return gamma * reciprocal, (shift - self.mean) * reciprocal * gamma + beta


def statistics_of(editor: Editor, norm: Node) -> NormStatistics:
    """Return the statistics that the batch norm ``norm`` is given.

    Raises:
        TypeError: the norm has no running statistics, or some of them are computed.
    """

    def given(name: str) -> Tensor | None:
        node = argument_value(norm, name)
        value = editor.stored(node)
        if node is not None and value is None:
            raise TypeError(f"{norm.name}.{name} is computed")
        return None if value is None else value.detach()

    mean, var = given("running_mean"), given("running_var")
    if mean is None or var is None:
        raise TypeError(f"{norm.name} has no running statistics")
    eps = argument_value(norm, "eps")
    return NormStatistics(mean, var, gamma=given("weight"), beta=given("bias"), eps=eps)


def output_axis(layer: Node) -> int:
    """Return the axis of the output channels in the weight of a convolution or linear."""
    return 1 if str(layer.target).startswith("aten.conv_transpose") else 0


def scale_channels(weight: Tensor, scale: Tensor, layer: Node) -> Tensor:
    """Scale each output channel.

    Args:
        weight: ``(out, in / groups, *kernel)``; ``(in, out / groups, *kernel)`` if transposed.
        scale: ``(out,)``.
        layer: The layer; decides which of the two shapes applies.
    """
    kernel = [1] * (weight.dim() - 2)
    if output_axis(layer) == 0:
        return weight * scale.reshape(-1, 1, *kernel)
    groups = argument_value(layer, "groups")
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, *kernel)).reshape(weight.shape)


def set_bias(editor: Editor, layer: Node, old: Node | None, value: Tensor, weight: Node) -> None:
    """Give ``layer`` the bias ``value``; positionally where it had none, as torch.export does.

    Args:
        editor: Editor of the layer's graph.
        layer: A convolution or linear.
        old: The constant that was its bias, if any.
        value: ``(out,)``.
        weight: The constant that holds its weight; a new bias is stored beside it.
    """
    if old is not None:
        set_argument(layer, "bias", editor.changed_constant(old, value, before=layer))
        return
    owner = str(weight.target).rpartition(".")[0]
    target = f"{owner}.bias" if owner else "bias"
    bias = editor.constant(target, value, like=weight, before=layer)
    if "bias" in layer.kwargs or len(layer.args) > 2:
        set_argument(layer, "bias", bias)
    else:
        layer.args = (*layer.args, bias)


def counter_of(node: Node) -> Node | None:
    """Return the ``num_batches_tracked`` that ``node`` adds to; None for any other node.

    A batch norm that is called twice adds to the result of its first addition.
    """
    counter: Any = node
    while isinstance(counter, Node) and counter.target is COUNTS:
        counter = counter.args[0]
    if counter is node or not isinstance(counter, Node) or counter.op != "get_attr":
        return None
    is_counter = str(counter.target).rpartition(".")[2] == "num_batches_tracked"
    return counter if is_counter else None

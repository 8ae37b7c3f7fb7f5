"""What the tests of the PT2E names share: a quantizer of the plainest kind, and how to run one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import MinMaxObserver
from torch.fx import GraphModule, Node

from quantfx import compat
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.graph.graphs import referent

Q = torch.ops.quantized_decomposed.quantize_per_tensor.default
DQ = torch.ops.quantized_decomposed.dequantize_per_tensor.default
DQ_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
aten = torch.ops.aten


def u8(observer: Any = MinMaxObserver, **options: Any) -> compat.QuantizationSpec:
    """Affine, whole-tensor; ``options`` are what differs."""
    spec = compat.QuantizationSpec(torch.uint8, observer, 0, 255, torch.per_tensor_affine)
    return replace(spec, **options)


class ByNode(compat.Quantizer):
    """Annotates every node for which ``annotation`` returns something."""

    def __init__(self, annotation: Callable[[Node], compat.QuantizationAnnotation | None]) -> None:
        self.annotation = annotation

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in model.graph.nodes:
            found = self.annotation(node)
            if found is not None:
                node.meta[ANNOTATION_KEY] = found
        return model

    def validate(self, model: GraphModule) -> None:
        pass


def all_inputs(target: object, spec: Any) -> ByNode:
    """Return a quantizer of every input of one operator."""

    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target is not target:
            return None
        return compat.QuantizationAnnotation(dict.fromkeys(node.all_input_nodes, spec))

    return ByNode(annotation)


def export(model: nn.Module, *inputs: Any) -> GraphModule:
    module = torch.export.export(model.eval(), inputs).module()
    assert isinstance(module, GraphModule)
    return module


def x86() -> compat.X86InductorQuantizer:
    config = compat.get_default_x86_inductor_quantization_config()
    return compat.X86InductorQuantizer().set_global(config)


def find(module: GraphModule, target: object) -> list[Node]:
    return [node for node in module.graph.nodes if node.target is target]


def count(module: GraphModule, target: object) -> int:
    return len(find(module, target))


def observer(module: GraphModule, node: object) -> nn.Module:
    """Return the observer that the call_module ``node`` calls."""
    assert isinstance(node, Node)
    assert node.op == "call_module", node
    found = referent(module, node)
    assert isinstance(found, nn.Module)
    return found


def sqnr(reference: Tensor, value: Tensor) -> float:
    with torch.no_grad():
        return float(20 * torch.log10(reference.norm() / (value - reference).norm()))


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class ConvRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.conv(x))

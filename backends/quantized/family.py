"""The base of kernel families on torch's own kernels."""

from __future__ import annotations

from torch.fx import Node

from quantfx.backends.quantized.quantized_tensors import announce
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.packed import Packed
from quantfx.passes.pipeline.kernel_family import KernelFamily


class NativeFamily(KernelFamily):
    """Kernels on tensors that carry their qparams."""

    def prepare(self) -> None:
        """Trigger torch's warning about such tensors here."""
        announce()


def write_packed(
    editor: Editor, packed: Packed, weight: Node, *others: Node | None, before: Node
) -> Node:
    """Write the packing of ``weight`` and its companions, under a name like the weight's."""
    target = editor.free_name(f"{weight.target}_packed".replace(".", "_"))
    return editor.call_module(target, packed, weight, *others, before=before, like=weight)

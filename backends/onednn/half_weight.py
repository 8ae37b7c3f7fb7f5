"""The requirements of linears with weights in half precision, for all kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, argument_node


def half_weight_reason(candidate: Candidate, editor: Editor) -> str | None:
    """Return why the kernels do not take the weight or the input, as a sentence."""
    value = editor.stored(candidate.quantized("weight"))
    x = argument_node(candidate.anchor, "input").meta.get("val")
    if value is None or value.dtype != torch.float16:
        return f"{candidate.quantized('weight').name} is not stored in half precision"
    if isinstance(x, Tensor) and x.dtype != torch.float32:
        return f"its input is {x.dtype}, the kernel takes torch.float32"
    return None

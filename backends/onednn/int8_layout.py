"""The kernel family ``int8-layout``: operators that only move or select values work on integers.

``q(cat(dq(a), dq(b))) -> cat(a, b)``, if all share one scale and zero point: values, rounding and
the order of integers stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node
from torch.fx.node import map_arg

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, argument_node
from quantfx.passes.quant.qdq import dequantizes, qparams_of
from quantfx.patterns.schema import overload, resolve_op

_MAX_POOL = resolve_op("aten.max_pool2d.default")
_CONTIGUOUS = resolve_op("aten.contiguous.default")
_POOL_LIMIT = 127


@dataclass(frozen=True)
class Int8Layout(KernelFamily):
    """Runs the operator itself on int8 tensors."""

    name = "int8-layout"

    def takes(self, candidate: Candidate) -> bool:
        """Whether the template passes int8 through."""
        return candidate.reach == "layout"

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the input that has other qparams than the result, or is float."""
        quantize = candidate.quantize
        if quantize is None:
            return f"{candidate.anchor.name} is not quantized"
        for node in candidate.anchor.all_input_nodes:
            if not dequantizes(node):
                return f"{node.name} is float"
            if qparams_of(node) != qparams_of(quantize):
                return f"{node.name} has other qparams than {quantize.name}"
        return None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the operator again, on the integers."""
        node, before = candidate.anchor, candidate.match.output

        def integers(dequantize: Node) -> Node:
            source = argument_node(dequantize, "input")
            return _contiguous(source, node, editor, before) if node.target is _MAX_POOL else source

        args: Any = map_arg(node.args, integers)
        kwargs: Any = map_arg(node.kwargs, integers)
        call = editor.call(overload(node), args, kwargs=kwargs, like=node, before=before)
        return Emission(call, before, f"int8 {str(node.target).split('.')[1]}")


def _contiguous(source: Node, like: Node, editor: Editor, before: Node) -> Node:
    """Make the planes contiguous if the pool needs it.

    torch 2.13: ``max_pool2d`` on a uint8 tensor in channels_last counts positions in a signed byte,
    and raises for planes of more. Inductor's loop does not, so ``drop_pool_copies`` removes the
    copy.
    """
    height, width = source.meta["val"].shape[-2:]
    if isinstance(height, int) and isinstance(width, int) and height * width <= _POOL_LIMIT:
        return source
    return editor.call(_CONTIGUOUS, (source,), like=like, before=before)

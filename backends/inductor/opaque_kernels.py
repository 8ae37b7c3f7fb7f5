"""Hide kernel calls from Inductor's own patterns until quantfx's passes have fused them.

torch 2.13 looks for ``onednn.qconv_pointwise`` and ``qlinear_pointwise`` followed by activations,
sums and quantizes. It fuses these without regard to a quantize's range, to other readers of a
summand, or (an AssertionError) to a sum after a fused activation. So its graph calls equivalent
operators of quantfx, which become oneDNN's again after its patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from quantfx.backends.inductor.torch_internals import lower_channels_last
from quantfx.backends.onednn.ops import QCONV, QLINEAR, QLINEAR_DYNAMIC
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.patterns.schema import resolve_op, schema_text

NAMESPACE = "quantfx"
_KERNELS = (QCONV, QLINEAR, QLINEAR_DYNAMIC)


class HideKernels(GraphPass):
    """``onednn.qconv_pointwise(x) -> quantfx.qconv_pointwise(x)``, and so on."""

    name = "hide-kernels"
    counts = "hidden"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rename the calls."""
        return _rename(editor, opaque_kernels())


class RevealKernels(GraphPass):
    """``quantfx.qconv_pointwise(x) -> onednn.qconv_pointwise(x)``, and so on.

    This applies only if the weight is a packed constant. In a branch of control flow Inductor
    freezes nothing and cannot lower oneDNN's kernels (torch 2.13), so calls there stay hidden.
    """

    name = "reveal-kernels"
    counts = "revealed"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rename the calls."""
        names = {opaque: kernel for kernel, opaque in opaque_kernels().items()}
        return _rename(editor, names, lambda node: argument_node(node, "qw").op == "get_attr")


def _rename(
    editor: Editor, names: Mapping[Any, Any], wanted: Callable[[Node], bool] = lambda _: True
) -> int:
    count = 0
    for old, new in names.items():
        for node in editor.graph.find_nodes(op="call_function", target=old):
            if wanted(node):
                node.target = new
                count += 1
    return count


@lru_cache(maxsize=1)
def opaque_kernels() -> dict[OpOverload[..., Any], OpOverload[..., Any]]:
    """Define the operators, once per process, and return them by the kernels that they hide."""
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has none
    found: dict[OpOverload[..., Any], OpOverload[..., Any]] = {}
    for kernel in _KERNELS:
        schema = schema_text(kernel).partition("::")[2]
        name = schema.partition("(")[0]
        library.define(schema)
        # Runs the kernel if nothing reveals it, and on fake tensors.
        library.impl(name, kernel, "CompositeExplicitAutograd")
        packet, _, overload = name.partition(".")
        found[kernel] = resolve_op(f"{NAMESPACE}.{packet}.{overload or 'default'}")
    _LIBRARIES.append(library)  # operators live as long as their library
    return found


@lru_cache(maxsize=1)
def channels_last_kernel() -> OpOverload[..., Any]:
    """Define ``quantfx.qconv_channels_last``, once per process, with its lowering in Inductor."""
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]  # torch has none
    _, _, arguments = schema_text(QCONV).partition("(")
    library.define(f"qconv_channels_last({arguments}")
    library.impl("qconv_channels_last", QCONV, "CompositeExplicitAutograd")
    _LIBRARIES.append(library)
    op = resolve_op(f"{NAMESPACE}.qconv_channels_last.default")
    lower_channels_last(op, QCONV)
    return op


_LIBRARIES: list[Any] = []

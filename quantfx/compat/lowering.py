"""From a quantized model to one of oneDNN operators that runs without a compiler."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.backends.targets import host
from quantfx.compat.errors import ArgumentError
from quantfx.compat.strip_guards import StripGuards
from quantfx.passes.base import Context
from quantfx.passes.editor import Editor
from quantfx.passes.qdq import QUANTIZE_PER_TENSOR
from quantfx.patterns.errors import QuantfxWarning
from quantfx.patterns.schema import argument_value

_TRANSPOSE = torch.ops.aten.t.default
_PERMUTE = torch.ops.aten.permute.default


def lower_pt2e_quantized_to_x86(model: GraphModule, example_inputs: tuple[Any, ...]) -> GraphModule:
    """Return ``model`` with its quantized operators as ``torch.ops.onednn.*``.

    Args:
        model: From ``convert_pt2e``; not changed.
        example_inputs: Positional arguments it accepts.

    Raises:
        ArgumentError: ``model`` is not a graph.
    """
    # Here and not above: they load Inductor, which nothing else of this package needs.
    from torch._inductor.constant_folding import constant_fold
    from torch._inductor.fx_passes.freezing_patterns import freezing_passes

    if not isinstance(model, GraphModule):
        raise ArgumentError(f"a {type(model).__name__} is no graph: use convert_pt2e first")
    if host().saturates and _uses_full_range(model):
        warnings.warn(
            f"this CPU ({host().name}) has no VNNI: full-range int8 sums saturate and are silently "
            "wrong. Use get_default_x86_inductor_quantization_config(reduce_range=True)",
            QuantfxWarning,
            stacklevel=2,
        )
    with torch.no_grad():
        program = torch.export.export(model, example_inputs, strict=True)
        lowered: Any = program.run_decompositions(_composite_only()).module()
        StripGuards().run(lowered, Context())
        _spell_transposes(lowered)
        freezing_passes(lowered, example_inputs)
        constant_fold(lowered)
    return lowered  # type: ignore[no-any-return]


def _uses_full_range(model: GraphModule) -> bool:
    """Whether some activation reaches beyond the 7 bits that leave room in a 16-bit sum."""
    quantizes = model.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
    return any(argument_value(node, "quant_max") > 127 for node in quantizes)


def _composite_only() -> dict[Any, Any]:
    """Return the decompositions of operators that autograd takes apart, and no others.

    Inductor's patterns are written for graphs as they are behind autograd.
    """
    table: Any = torch.export.default_decompositions()
    key = torch._C.DispatchKey.CompositeImplicitAutograd  # pyright: ignore[reportPrivateUsage]
    return {op: how for op, how in table.items() if op.has_kernel_for_dispatch_key(key)}


def _spell_transposes(module: GraphModule) -> None:
    """``t(x) -> permute(x, [1, 0])``, the one spelling that Inductor's patterns know."""
    editor = Editor(module, "lower-pt2e-quantized-to-x86")
    for node in module.graph.find_nodes(op="call_function", target=_TRANSPOSE):
        new = editor.call(_PERMUTE, (node.args[0], [1, 0]), like=node, before=node)
        editor.replace(node, new)
    module.recompile()

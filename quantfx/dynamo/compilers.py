"""The backends of ``torch.compile``: entry points of group ``torch_dynamo_backends``.

``torch.compile(model, backend="quantfx_x86")`` finds them without quantfx being imported. They are
not registered in any other way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from quantfx.dynamo.compile_frame import Plan, compile_frame
from quantfx.dynamo.internals import require_internals
from quantfx.dynamo.lower_frame import lower_frame
from quantfx.dynamo.options import Options, read_options

Given = Mapping[str, Any] | None


def quantfx_x86(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Given = None,
    mode: str | None = None,
    **_: object,
) -> Callable[..., Any]:
    """Quantize for Intel and AMD CPUs: observe the first calls in float, then compute in int8.

    Args:
        gm: Dynamo's graph.
        example_inputs: Its inputs.
        options: See ``quantfx.dynamo.options.Options``; and those of ``quantfx.backends.x86``.
        mode: None or ``default``.

    Raises:
        QuantfxError: an option is wrong, or the graph cannot be quantized as they ask.
    """
    return _quantizing("x86", gm, example_inputs, options, mode)


def quantfx_xpu(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Given = None,
    mode: str | None = None,
    **_: object,
) -> Callable[..., Any]:
    """Quantize for Intel GPUs, as ``quantfx_x86``; never run on one, and refused on a CPU.

    Raises:
        QuantfxError: there is no XPU; says what can be done without; or as ``quantfx_x86``.
    """
    return _quantizing("xpu", gm, example_inputs, options, mode)


def quantfx_native(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Given = None,
    mode: str | None = None,
    **_: object,
) -> Callable[..., Any]:
    """Quantize for torch's native kernels, which run one by one, as ``quantfx_x86``.

    Recurrent layers break Dynamo's graph, and stay float: ``quantfx.quantize`` takes them.

    Raises:
        QuantfxError: as ``quantfx_x86``.
    """
    return _quantizing("native", gm, example_inputs, options, mode)


def quantfx_lower(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Given = None,
    mode: str | None = None,
    **_: object,
) -> Callable[..., Any]:
    """Lower a q/dq graph to oneDNN's int8 kernels, e.g. ``quantfx.quantize(...).quantized``.

    Args:
        gm: Dynamo's graph of it.
        example_inputs: Its inputs.
        options: ``strict``, ``check_weights`` and ``state``, as for ``quantfx_x86``.
        mode: None or ``default``.

    Raises:
        QuantfxError: an option is wrong.
        ContractError: there is nothing quantized in the graph, or something missed its kernel.
    """
    require_internals()
    read = read_options("quantfx_lower", None, options, mode, LOWER_OPTIONS)
    return lower_frame(gm, example_inputs, read)


LOWER_OPTIONS = ("strict", "check_weights", "state")


def _quantizing(
    name: str, gm: GraphModule, inputs: Sequence[Any], given: Given, mode: str | None
) -> Callable[..., Any]:
    require_internals()
    options = read_options(f"quantfx_{name}", name, given, mode)
    return compile_frame(gm, inputs, Plan(options.backend(name), options, _batches(options)))


def _batches(options: Options) -> float:
    """Return after how many calls a graph becomes int8: none if the data comes with the options."""
    return 1 if options.calibration is not None else options.calibration_batches

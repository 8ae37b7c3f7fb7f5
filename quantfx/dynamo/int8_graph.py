"""Convert a captured graph, lower it, and make it callable in place of Dynamo's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.backends.checks.lowering import BOUNDED, Lowering, require_compiled
from quantfx.backends.inductor.compile import (
    CompiledModule,
    autocasts,
    compiling,
    require_regions,
)
from quantfx.backends.inductor.compiler_errors import inductor_errors
from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.backends.inductor.lowered_pair import HIDE, LoweredPair
from quantfx.backends.inductor.static_graph import StaticGraph, static_forms
from quantfx.backends.inductor.torch_internals import compile_last
from quantfx.dynamo.bound_weights import BoundWeights
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.free_sizes import compile_with_sizes
from quantfx.passes.errors import ModeError
from quantfx.passes.report.outcome import compiled_outcomes
from quantfx.passes.report.report import Report

STALE = (
    "compile the model again (torch.compiler.reset() first), or convert() again if it is "
    "quantfx.auto's; option check_weights=False takes the old weights"
)


@dataclass(frozen=True)
class QuantizedFrame:
    """A captured graph with int8 weights.

    Attributes:
        where: Function and place of the graph, for messages.
        lowering: The lowered graph.
        storages: Addresses of the memory of its constants, some of it the model's own.
        report: The report of the graph.
    """

    where: str
    lowering: Lowering
    storages: frozenset[int]
    report: Report


def quantize_frame(
    captured: FrameGraph, prepared: GraphModule, backend: Backend, *, strict: bool
) -> QuantizedFrame:
    """Convert and lower a graph that was observed.

    Args:
        captured: The captured graph.
        prepared: The same graph with observers that have seen data.
        backend: The backend that prepared it.
        strict: Refuse planned sites that miss their kernels or would compute wrongly here.

    Raises:
        CalibrationError: a site was never observed.
        ContractError: a planned site was not converted, or ``strict`` refuses a site.
        QuantfxError: the graph cannot run on this machine, or under autocast to this dtype.
    """
    quantized = backend.convert(prepared, strict=strict)
    return lower_quantized(captured, quantized, backend, strict=strict)


def lower_quantized(
    captured: FrameGraph,
    quantized: GraphModule,
    backend: Backend,
    *,
    strict: bool,
    cure: str = BOUNDED,
) -> QuantizedFrame:
    """Lower a q/dq graph.

    Args:
        captured: The captured graph.
        quantized: The q/dq graph.
        backend: The backend whose kernels to lower to.
        strict: As for ``quantize_frame``.
        cure: How to quantize for this CPU, for messages of saturation.

    Raises:
        ContractError: ``strict`` refuses a site.
        QuantfxError: as ``quantize_frame``.
    """
    mixed = not backend.eager and autocasts()
    require_regions(quantized)
    lowering = backend.lowering(quantized, float_dtype="bfloat16" if mixed else "")
    lowering.require(strict=strict, cure=cure)
    report = backend.make_report(captured.graph, quantized, lowering.sites)
    return QuantizedFrame(captured.where, lowering, storages_of(lowering.module), report)


def storages_of(module: GraphModule) -> frozenset[int]:
    """Return the addresses of the memory of a graph's constants."""
    tensors = [*module.parameters(), *module.buffers()]
    return frozenset(tensor.untyped_storage().data_ptr() for tensor in tensors)


Note = Callable[[Report], None]


def compile_here(
    frame: QuantizedFrame, inputs: Sequence[Any], note: Note, *, strict: bool
) -> Callable[..., Any]:
    """Compile in a running ``torch.compile``, whose guards cover Inductor's assumptions.

    Args:
        frame: What to compile.
        inputs: Inputs from Dynamo, without those that became constants.
        note: Gets the report of the compiled graph.
        strict: Refuse compiled code in which a site misses its kernel.

    Raises:
        ContractError: ``strict`` refuses a site.
    """
    kernels: list[KernelCall] = []
    module = HIDE.run(frame.lowering.module)
    module.meta.pop("dynamo_compile_id", None)
    with torch.no_grad(), inductor_errors(frame.where), compiling(kernels.extend):
        run = compile_with_sizes(module, inputs, compile_last)
    note(_account(frame, kernels, strict=strict))
    return run


def compile_later(
    frame: QuantizedFrame, inputs: Sequence[Any], note: Note, *, strict: bool
) -> Callable[..., Any]:
    """Compile during a call, while no ``torch.compile`` is running.

    A graph of fixed shapes is compiled for these. For a graph with free sizes Inductor may need
    more guards than Dynamo has by now, so it gets its own ``torch.compile``.

    Args:
        frame: What to compile.
        inputs: Inputs of this call, without those that became constants; only their form matters.
        note: Gets the report of the compiled graph, once compiled.
        strict: Refuse compiled code in which a site misses its kernel.

    Raises:
        ContractError: ``strict`` refuses a site.
    """
    kernels: list[KernelCall] = []
    module = HIDE.run(frame.lowering.module)
    forms = static_forms(module)
    if forms is None:
        return _Nested(frame, note, strict)
    static = StaticGraph(module, forms)
    with torch.no_grad(), inductor_errors(frame.where), compiling(kernels.extend):
        static.compile(tuple(inputs))
    note(_account(frame, kernels, strict=strict))
    return static


class _Nested:
    """A graph with free sizes, compiled at its first call."""

    def __init__(self, frame: QuantizedFrame, note: Note, strict: bool) -> None:
        self._first: tuple[QuantizedFrame, Note] | None = (frame, note)
        self._strict = strict
        self._where = frame.where
        self._run = CompiledModule(LoweredPair(frame.lowering.module), dynamic=True)

    def __call__(self, *args: Any) -> Any:
        with inductor_errors(self._where):
            result = self._run(*args)
        first, self._first = self._first, None
        if first is not None:
            frame, note = first
            note(_account(frame, list(self._run.kernels), strict=self._strict))
        return result


def _account(frame: QuantizedFrame, kernels: list[KernelCall], *, strict: bool) -> Report:
    sites = compiled_outcomes(frame.lowering.sites, dict(kernels), frame.lowering.module)
    require_compiled(sites, strict=strict)
    return frame.report.with_compiled(sites)


def run_eagerly(frame: QuantizedFrame, note: Note) -> Callable[..., Any]:
    """Run kernels one by one, if no compiler knows them."""
    note(frame.report)
    return frame.lowering.eager


def in_place_of(
    captured: FrameGraph, run: Callable[..., Any], weights: BoundWeights | None
) -> Callable[..., Any]:
    """Return a function that takes the inputs of Dynamo's graph and runs the int8 code.

    Args:
        captured: The graph.
        run: Takes the inputs of the captured graph.
        weights: Weights to check for changes in each call; None checks nothing.

    Raises:
        StaleWeightsError: (the returned function) a weight was written to.
        ModeError: (the returned function) an input asks for its gradient.
    """
    taken = captured.inputs
    where, outermost = captured.where, captured.outermost

    def int8(*args: Any) -> Any:
        if weights is not None:
            weights.require_unchanged(STALE)
        inputs = [args[index] for index in taken]
        if not torch.is_grad_enabled():
            return run(*inputs)
        require_no_gradient(inputs, where, outermost)
        with torch.no_grad():
            return run(*inputs)

    return int8


def require_no_gradient(inputs: Sequence[Any], where: str, outermost: bool) -> None:
    """Refuse a call that wants gradients.

    Args:
        inputs: Inputs of a graph.
        where: Function and place of the graph.
        outermost: Whether the inputs come from the user. Results of a float part before a graph
            break have gradients because of its parameters, which nobody asked for.

    Raises:
        ModeError: an input asks for its gradient.
    """
    if any(
        isinstance(each, Tensor) and each.requires_grad and (outermost or each.is_leaf)
        for each in inputs
    ):
        message = f"an input of {where} asks for its gradient, and int8 graphs have none"
        fix = (
            "call it in torch.no_grad(), detach the input, or train() the model, which then "
            "runs in float"
        )
        raise ModeError(message, rule="no-gradients", site=where, fix=fix)

"""Convert a captured graph, lower it, and make it callable in the place of Dynamo's graph."""

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
        where: What it is of, for messages.
        lowering: What its sites become.
        storages: Addresses of the memory that its constants are in, some of it the model's own.
        report: The account of it.
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
        captured: What was prepared.
        prepared: With observers that have seen what they need.
        backend: What prepared it.
        strict: Refuse planned sites without a kernel, or that would compute wrongly here.

    Raises:
        CalibrationError: a site was never observed.
        ContractError: a planned site was not converted, or what ``strict`` says.
        QuantfxError: the graph cannot run on this machine, or autocast is to a wrong dtype.
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
        captured: What it is of.
        quantized: The q/dq graph.
        backend: Whose kernels to lower to.
        strict: As for ``quantize_frame``.
        cure: How to quantize for this CPU, for messages.

    Raises:
        ContractError: what ``strict`` says.
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
    """Compile in a running ``torch.compile``, whose guards cover what Inductor takes for granted.

    Args:
        frame: What to compile.
        inputs: As Dynamo hands them, without what became constants.
        note: Told of the account of what was compiled.
        strict: Refuse a compiled graph that misses a kernel.

    Raises:
        ContractError: what ``strict`` says.
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
    """Compile at a call, when no ``torch.compile`` is running.

    A graph of fixed shapes is compiled for them. Of one with free sizes Inductor may want to know
    more than what Dynamo has guarded by now, so it gets a ``torch.compile`` of its own.

    Args:
        frame: What to compile.
        inputs: Of this call, without what became constants; only their form matters.
        note: Told of the account of what was compiled, once it is.
        strict: Refuse a compiled graph that misses a kernel.

    Raises:
        ContractError: what ``strict`` says.
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
    """A graph with free sizes, compiled when it is first called."""

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
    """Run kernels one by one, where no compiler knows them."""
    note(frame.report)
    return frame.lowering.eager


def in_place_of(
    captured: FrameGraph, run: Callable[..., Any], weights: BoundWeights | None
) -> Callable[..., Any]:
    """Return what takes the inputs of Dynamo's graph and runs the int8 code.

    Args:
        captured: The graph.
        run: Takes the inputs of the captured graph.
        weights: Checked in each call for having changed; None not to.

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
        inputs: Of a graph.
        where: What it is of.
        outermost: Whether they come from the user. What a float part of the model computes in front
            of a graph break has a gradient by its parameters, which nobody asked for.

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

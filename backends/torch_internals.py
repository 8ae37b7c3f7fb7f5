"""Everything of Inductor that quantfx uses and that has no public name (torch 2.13).

Checked by ``tests/backends/test_torch_internals_2_13.py``; on another torch, mend this file first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.utils
import torch._inductor
import torch._inductor.config
from torch._dynamo.exc import BackendCompilerFailed as BackendCompilerFailed
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.fx_utils import FakeTensorUpdater
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule


class GraphPass(CustomGraphPass):
    """A function that Inductor calls on its graph behind AOTAutograd and freezing.

    Fake tensors behind what it changed are made anew as long as kernels are operators: from torch
    2.14 on, Inductor refuses to do so behind its lowerings, where a layout differs from the noted.

    Args:
        function: Changes the module in place.
    """

    def __init__(self, function: Callable[[GraphModule], None]) -> None:
        self._function = function

    def __call__(self, graph: Graph) -> None:
        """Run on the module that owns ``graph``."""
        module = graph.owning_module
        if module is not None:
            updater = FakeTensorUpdater(module)
            self._function(module)
            updater.incremental_update()

    def uuid(self) -> object | None:
        """No key: a graph from Inductor's cache would not say which kernels were fused."""
        return None


def inductor_settings(**settings: Any) -> AbstractContextManager[None]:
    """Return a context in which Inductor has other settings, in this thread only."""
    return torch._inductor.config.patch(**settings)  # type: ignore[no-any-return]


def compile_graph(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Return Inductor's code for a graph, for inputs of exactly this form.

    Args:
        module: Changed by this: its calling convention moves into what is returned.
        inputs: Positional, as many as it has placeholders.
    """
    made: Any = compile_fx(module, inputs)
    return made  # type: ignore[no-any-return]


def compile_last(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Return Inductor's code for a graph that nothing else uses, as ``compile_graph``.

    AOTAutograd keeps the module in what it returns, for the module's methods, and with it the
    weights from which the kernels' own were packed: they are taken out here.

    Args:
        module: Has no tensors any more afterwards.
        inputs: Positional, as many as it has placeholders.
    """
    made = compile_graph(module, inputs)
    for each in module.modules():
        for name in [
            *dict(each.named_parameters(recurse=False)),
            *dict(each.named_buffers(recurse=False)),
        ]:
            delattr(each, name)
    return made


class OutsideSettings(Exception):
    """Dynamo wants to compile while the settings are not those that the graph needs."""


def with_inductor(
    module: GraphModule, ready: Callable[[], bool], *, dynamic: bool | None = None
) -> Callable[..., Any]:
    """Return ``module`` to be compiled by Inductor, whenever a call needs it and ``ready`` says so.

    Raises:
        OutsideSettings: a call needs compiling and it does not; see ``needs_settings``.
    """

    def backend(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if not ready():
            raise OutsideSettings
        return compile_graph(graph, inputs)

    compiled: Callable[..., Any] = torch.compile(module, backend=backend, dynamic=dynamic)
    return compiled


def needs_settings(error: BackendCompilerFailed) -> bool:
    """Whether a call failed because it came outside of the settings."""
    return isinstance(error.inner_exception, OutsideSettings)


def current_translator() -> Any:
    """Return what translates the frame that Dynamo compiles at the moment; None if it does not."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        return InstructionTranslator.current_tx()
    except (AttributeError, RuntimeError, AssertionError):
        return None


def compiling_backend() -> str | None:
    """Return the name of the backend that is compiling; None if it has none, or none is."""
    translator = current_translator()
    if translator is None:
        return None
    compiler: Any = translator.output.compiler_fn
    name = getattr(compiler, "_compiler_name", None) or getattr(compiler, "compiler_name", None)
    return None if name is None else str(name)


def inductor_freezes() -> bool:
    """Whether Inductor, called now, would pack weights: told to, and without gradients."""
    return bool(torch._inductor.config.freezing) and not torch.is_grad_enabled()


def has_qdq_patterns() -> bool:
    """Whether Inductor has patterns of its own that lower q/dq graphs: torch 2.14 took them out."""
    from torch._inductor.fx_passes import quantization

    return hasattr(quantization, "_register_quantization_weight_pack_pass")


def inductor_counter(name: str) -> int:
    """Return one of Inductor's counters, of this process so far."""
    return int(torch._dynamo.utils.counters["inductor"][name])


def compile_ahead_of_time(program: ExportedProgram, package: Path, **settings: Any) -> Path:
    """Compile to a library with AOTInductor and return the package it was put in."""
    written = torch._inductor.aoti_compile_and_package(
        program, package_path=str(package), inductor_configs=settings
    )
    return Path(written)


def load_package(package: Path) -> Callable[..., Any]:
    """Return the model in a package of ``compile_ahead_of_time``."""
    return torch._inductor.aoti_load_package(str(package))


def force_strides() -> OpOverload[..., Any]:
    """Return Inductor's operator that gives a tensor the order of strides it is told."""
    from torch._inductor import inductor_prims  # registers itself with a running Inductor

    op: OpOverload[..., Any] = inductor_prims.force_stride_order
    return op


def lower_channels_last(op: OpOverload[..., Any], kernel: OpOverload[..., Any]) -> None:
    """Let Inductor compile ``op`` to a call of ``kernel`` whose result is declared channels_last.

    Args:
        op: An operator of ours, with the schema of ``kernel``.
        kernel: A convolution of oneDNN that Inductor knows.
    """
    from torch._inductor import ir, lowering
    from torch._prims_common import make_channels_last_strides_for

    def lower(*args: Any) -> Any:
        box: Any = lowering.lowerings[kernel](*args)
        call = box.data.data
        declared = call.layout
        strides: Any = make_channels_last_strides_for(declared.size)
        call.layout = ir.FixedLayout(declared.device, declared.dtype, declared.size, strides)
        return box

    register: Any = lowering.register_lowering
    register(op, type_promotion_kind=None)(lower)

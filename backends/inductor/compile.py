"""Compile a lowered graph with Inductor.

Weights are packed for the kernels when Inductor freezes them, which it only does while its
``freezing`` is on and gradients are off. Both are set here, for quantfx's calls only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import Any, Literal

import torch
from torch.fx import GraphModule

from quantfx.backends.checks.targets import require_autocast
from quantfx.backends.inductor.ahead_of_time import (
    AheadOfTimeModule,
    LibraryInputs,
    require_library,
)
from quantfx.backends.inductor.around_containers import around_containers
from quantfx.backends.inductor.compiler_errors import dynamo_errors
from quantfx.backends.inductor.declare_layouts import DeclareLayouts
from quantfx.backends.inductor.drop_pool_copies import DropPoolCopies
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.backends.inductor.lowered_pair import LoweredPair
from quantfx.backends.inductor.opaque_kernels import (
    RevealKernels,
    channels_last_kernel,
    opaque_kernels,
)
from quantfx.backends.inductor.recompile_limit import warns_at_limit
from quantfx.backends.inductor.sealed_module import SealedModule
from quantfx.backends.inductor.static_graph import StaticGraph, static_forms
from quantfx.backends.inductor.torch_internals import (
    BackendCompilerFailed,
    PostGradHook,
    capturing_sizes,
    compile_ahead_of_time,
    inductor_settings,
    needs_settings,
    run_as_post_grad,
    with_inductor,
)
from quantfx.backends.inductor.whole_rows import WholeRows
from quantfx.backends.onednn.ops import KERNEL_NAMES, QCONV
from quantfx.backends.recurrent.family import CELL as RECURRENT_CELL
from quantfx.backends.recurrent.family import KERNEL as RECURRENT
from quantfx.backends.recurrent.operator import operators
from quantfx.backends.weight_only.operator import kernel_name, weight_linear
from quantfx.passes.export.plain_outputs import take_out_plain
from quantfx.passes.graph.checked_module import input_check
from quantfx.passes.graph.clone import clone_as, recompile
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.nested_calls import autocast_dtype
from quantfx.passes.graph.plain_operators import plain_operators
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.contract import contract_of
from quantfx.passes.inputs.example import ExampleInputs, distinct
from quantfx.passes.inputs.leaves import input_leaves
from quantfx.passes.model.input_copies import spare_inputs
from quantfx.passes.pipeline.base import Context, Pass
from quantfx.passes.pipeline.permits import may
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.lowered import kernels_of, site_of
from quantfx.patterns.errors import QuantfxError, unknown_name
from quantfx.patterns.schema import overload

Wrapper = Literal["python", "cpp", "aot"]
WRAPPERS: tuple[Wrapper, ...] = ("python", "cpp", "aot")

# Inductor runs these on its own graph, in which kernels may overwrite their inputs.
POST_GRAD = Pipeline(
    (
        RevealKernels(),  # first: other passes look for kernels
        DropPoolCopies(),
        WholeRows(),
        FuseSums(),
        DeclareLayouts(),  # last: sums are looked for behind torch's own operators
    ),
    name="post-grad",
)


class CompiledModule(SealedModule):
    """A graph module compiled by Inductor; call it like the module.

    It may be part of other modules, see ``SealedModule``; a deep copy compiles anew. Every call
    runs without gradients. Inputs of the captured form run their own code; other inputs go through
    Dynamo, which compiles for their shapes. While a call compiles, Inductor's settings, which are
    thread-local, are set for freezing.

    Args:
        module: A captured, q/dq or lowered graph, or a `LoweredPair`.
        autocast: ``torch.bfloat16`` computes in bfloat16 between the int8 kernels; None leaves this
            to the caller's ``torch.autocast``.
        cpp: Whether the code that calls the kernels is C++ instead of Python.
        dynamic: Compile for free sizes at once, instead of at the second size.

    Attributes:
        kernels: Calls of lowered kernels in the last compiled graph, in its order.
    """

    def __init__(
        self,
        module: GraphModule | LoweredPair,
        autocast: torch.dtype | None = None,
        *,
        cpp: bool = False,
        dynamic: bool | None = None,
    ) -> None:
        super().__init__()
        self._pair = module if isinstance(module, LoweredPair) else LoweredPair(module)
        self._autocast = autocast
        self._cpp = cpp
        self._dynamic = dynamic
        self._static: dict[bool, StaticGraph | None] = {}
        self._dynamo: dict[bool, Callable[..., Any]] = {}
        self._lock = Lock()
        self.kernels: tuple[KernelCall, ...] = ()

    def call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the compiled module; the first call of a shape compiles.

        Raises:
            QuantfxError: autocast is on, in a dtype that int8 cannot be mixed with on this CPU.
        """
        with torch.no_grad():
            if self._autocast is None:
                return self._call(args, kwargs)
            with torch.autocast("cpu", self._autocast):
                return self._call(args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledModule:
        """Return a module with its own weights and state, which compiles at its first call."""
        copy = CompiledModule(
            self._pair.clone_tensors(), self._autocast, cpp=self._cpp, dynamic=self._dynamic
        )
        copy.kernels = self.kernels
        memo[id(self)] = copy
        return copy

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mixed = autocasts()
        if mixed not in self._static:
            with self._lock:  # two threads at the first call must share one
                if mixed not in self._static:
                    module = self._pair.module(mixed)
                    forms = static_forms(module)
                    self._static[mixed] = None if forms is None else StaticGraph(module, forms)
        static = self._static[mixed]
        if static is None or not static.fits(args, kwargs):
            if self._pair.check is not None:
                self._pair.check(args, kwargs)
            if not self._pair.makes_sizes:
                return self._call_dynamo(mixed, args, kwargs)
            with capturing_sizes(), dynamo_errors():
                return self._call_dynamo(mixed, args, kwargs)
        if not static.is_compiled:
            with self._lock, compiling(self._note_kernels, cpp_wrapper=self._cpp):
                if not static.is_compiled:  # by another thread, in the meantime
                    static.compile(args)
        return static(*args)

    def _call_dynamo(self, mixed: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if mixed in self._dynamo:
            try:
                return self._dynamo[mixed](*args, **kwargs)
            except BackendCompilerFailed as error:
                if not needs_settings(error):
                    raise
        else:
            self._dynamo[mixed] = around_containers(
                self._pair.module(mixed),
                lambda module: with_inductor(
                    module, is_compiling, warns_at_limit, dynamic=self._dynamic
                ),
            )
        # Inductor writes the strides of outputs into the graph, and fails on sizes that depend on
        # data.
        choose = {"layout_optimization": False} if self._pair.makes_sizes else {}
        with compiling(self._note_kernels, cpp_wrapper=self._cpp, **choose):
            return self._dynamo[mixed](*args, **kwargs)

    def _note_kernels(self, kernels: tuple[KernelCall, ...]) -> None:
        self.kernels = kernels


_COMPILING: ContextVar[bool] = ContextVar("quantfx_compiling", default=False)


def is_compiling() -> bool:
    """Whether this is inside of ``compiling``."""
    return _COMPILING.get()


def autocasts() -> bool:
    """Whether autocast is on.

    Raises:
        QuantfxError: it is on, in a dtype that int8 cannot be mixed with on this CPU.
    """
    if not torch.is_autocast_enabled("cpu"):
        return False
    require_autocast(torch.get_autocast_dtype("cpu"))
    return True


@contextmanager
def compiling(note: Callable[[tuple[KernelCall, ...]], None], **settings: Any) -> Generator[None]:
    """Set Inductor's settings for compiling a lowered graph.

    Args:
        note: Gets the kernel calls in the compiled code, if anything was compiled.
        settings: Further settings of Inductor.
    """
    calls: list[KernelCall] = []

    def finish(module: GraphModule) -> None:
        for each in POST_GRAD.passes:
            _run_named(each, module)
        calls.extend(kernel_calls(module))

    token = _COMPILING.set(True)
    try:
        with inductor_settings(
            freezing=True,
            post_grad_custom_pre_pass=PostGradHook(finish),
            # Dynamo's guards check inputs; asserts at each kernel cost 5 % of a MobileNetV2
            # inference.
            size_asserts=False,
            **settings,
        ):
            yield
    finally:
        _COMPILING.reset(token)
    if calls:
        note(tuple(calls))


def _run_named(each: Pass, module: GraphModule) -> None:
    """Run a quantfx pass inside Inductor so that torch's and quantfx's bisections can skip it."""
    if not each.optional:
        each.run(module, Context())
    elif may(each.name):
        run_as_post_grad(module, each.name, lambda graph: each.run(graph, Context()))


def kernel_calls(module: GraphModule) -> tuple[KernelCall, ...]:
    """Return the calls of lowered kernels in a compiler's graph, in its order."""
    names = KERNEL_NAMES | {
        opaque: KERNEL_NAMES[kernel] for kernel, opaque in opaque_kernels().items()
    }
    names |= {channels_last_kernel(): KERNEL_NAMES[QCONV], weight_linear(): kernel_name()}
    names |= dict(zip(operators(), (RECURRENT, RECURRENT_CELL), strict=True))
    calls: list[KernelCall] = []
    for node in module.graph.nodes:
        calls += (KernelCall(site, kernel) for site, kernel in kernels_of(node))
        if node.target in names and (site := site_of(node)) is not None:
            calls.append(KernelCall(site, names[overload(node)]))
    return tuple(calls)


def compile_module(
    pair: LoweredPair,
    inputs: ExampleInputs,
    *,
    autocast: torch.dtype | None = None,
    wrapper: Wrapper = "python",
    package: Path | None = None,
) -> CompiledModule | AheadOfTimeModule:
    """Compile for the given inputs.

    Args:
        pair: The graphs to compile.
        inputs: Example inputs, with the free dimensions of a library.
        autocast: ``torch.bfloat16`` computes in bfloat16 between the kernels.
        wrapper: The code that calls the kernels: generated Python, generated C++, or a library
            compiled ahead of time.
        package: Where to write the library; a temporary file by default.

    Raises:
        QuantfxError: the caller autocasts to a dtype that int8 cannot be mixed with, or there is no
            such wrapper.
    """
    if wrapper not in WRAPPERS:
        raise unknown_name(QuantfxError, "wrapper", wrapper, WRAPPERS)
    if wrapper == "aot":
        return _ahead_of_time(pair, inputs, autocast=autocast, package=package)
    compiled = CompiledModule(pair, autocast, cpp=wrapper == "cpp")
    mixed = autocast is not None or torch.is_autocast_enabled("cpu")
    module = pair.module(mixed)
    args, kwargs = spare_inputs(module, inputs.args, inputs.kwargs)
    with preserved_state(module):
        compiled(*args, **kwargs)
    return compiled


def require_regions(module: GraphModule) -> None:
    """Refuse the model's own autocast regions in a dtype that int8 cannot be mixed with."""
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            region = autocast_dtype(node)
            if region is not None:
                require_autocast(region)


def _ahead_of_time(
    pair: LoweredPair,
    example: ExampleInputs,
    *,
    autocast: torch.dtype | None,
    package: Path | None,
) -> AheadOfTimeModule:
    require_library(pair.exact)
    target = package or Path(mkdtemp(prefix="quantfx-")) / "model.pt2"
    noted: list[KernelCall] = []
    casting = contextlib.nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    with torch.no_grad(), casting, compiling(noted.extend):
        module = plain_operators(pair.module(autocasts()))
        inputs = LibraryInputs(module, example.args, example.kwargs)
        (given, named), shapes = distinct(
            module, (inputs.args, inputs.kwargs), example.dynamic_shapes
        )
        compiled = clone_as(module, GraphModule)
        restore = take_out_plain(compiled.graph, for_library=True)
        recompile(compiled)
        program = torch.export.export(compiled, given, named, dynamic_shapes=shapes)
        written = compile_ahead_of_time(program, target)
    contract = contract_of(module)
    if contract is None or not contract.checked:
        return AheadOfTimeModule(written, kernels=tuple(noted), inputs=inputs, restore=restore)
    if example.dynamic_shapes is None:
        leaves = [leaf for _, leaf in input_leaves(module, example.args, example.kwargs)]
        contract = contract.for_example_only(leaves)
    check = input_check(module, contract)
    return AheadOfTimeModule(
        written, kernels=tuple(noted), inputs=inputs, check=check, restore=restore
    )

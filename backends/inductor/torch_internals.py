"""Everything that quantfx uses of Inductor without a public name (torch 2.13).

Of Dynamo, only what is needed to watch it compile; the rest is in ``quantfx/dynamo/internals.py``.
Checked by ``tests/backends/inductor/test_torch_internals_2_13.py``; for another torch, adapt this
file first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import torch
import torch._dynamo.config
import torch._inductor
import torch._inductor.config
from torch._dynamo.exc import BackendCompilerFailed as BackendCompilerFailed
from torch._dynamo.exc import InternalTorchDynamoError as InternalTorchDynamoError
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.fx_utils import FakeTensorUpdater
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule
from torch.fx.passes.graph_transform_observer import GraphTransformObserver

from quantfx.patterns.errors import QuantfxError


class PostGradHook(CustomGraphPass):
    """A function that Inductor calls on its graph after AOTAutograd and freezing.

    Fake tensors after its changes are recomputed while kernels are still operators: from torch 2.14
    on, Inductor refuses this after its lowerings if a layout differs from the noted one.

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
            # Fake tensors must forget sizes that depend on data, before Inductor runs operators
            # again. torch 2.13: Inductor renames the new size to the old size's name. It fails with
            # an assertion if a fake tensor returns a size that it has renamed before, which the
            # update here would cause.
            for node in graph.nodes:
                value = node.meta.get("val")
                for memo in _SIZE_MEMOS if isinstance(value, FakeTensor) else ():
                    setattr(value, memo, None)

    def uuid(self) -> object | None:
        """No key: a graph from Inductor's cache would not say which kernels were fused."""
        return None


# Where a fake tensor remembers sizes that depend on its data.
_SIZE_MEMOS = ("nonzero_memo", "item_memo", "unique_memo", "unique_consecutive_memo")


def run_as_post_grad(
    module: GraphModule, name: str, function: Callable[[GraphModule], object]
) -> None:
    """Run ``function`` on ``module`` as one of Inductor's post-grad passes, under its own name.

    So torch's compiler bisector counts it, and Inductor's setting ``disabled_passes`` can name it.
    """
    GraphTransformObserver(module, name, "post_grad_passes").apply_gm_pass(function)


def inductor_settings(**settings: Any) -> AbstractContextManager[None]:
    """Return a context with other settings of Inductor, in this thread only."""
    return torch._inductor.config.patch(**settings)  # type: ignore[no-any-return]


def capturing_sizes() -> AbstractContextManager[None]:
    """Return a context in which Dynamo keeps a graph whole where sizes depend on data.

    torch 2.13: otherwise Dynamo breaks at such an operator, and then fails with a KeyError if a
    captured graph notes the size.
    """
    return torch._dynamo.config.patch(  # type: ignore[no-any-return]
        capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True
    )


def compile_graph(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Return Inductor's code for a graph, for inputs of exactly this form.

    Args:
        module: Changed: its calling convention moves into the returned code.
        inputs: Positional inputs, one for each placeholder.
    """
    made: Any = compile_fx(module, inputs)
    return made  # type: ignore[no-any-return]


def compile_last(module: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
    """Return Inductor's code, like ``compile_graph``, for a graph that nothing else uses.

    AOTAutograd keeps the module in the returned code, for the module's methods, and with it the
    weights that kernels have packed. This removes them.

    Args:
        module: Afterwards without tensors.
        inputs: Positional inputs, one for each placeholder.
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
    """Dynamo wants to compile without the settings that the graph needs."""


def with_inductor(
    module: GraphModule,
    ready: Callable[[], bool],
    mark: Callable[[Callable[..., Any]], Callable[..., Any]],
    *,
    dynamic: bool | None = None,
) -> Callable[..., Any]:
    """Return ``module`` to be compiled by Inductor when a call needs it and ``ready`` allows it.

    Args:
        module: What to compile.
        ready: Whether the settings are as the graph needs them.
        mark: Marks the backend for watches of Dynamo, and returns it.
        dynamic: As for ``torch.compile``.

    Raises:
        OutsideSettings: a call needs compiling and ``ready`` forbids it; see ``needs_settings``.
    """

    def backend(graph: GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if not ready():
            raise OutsideSettings
        return compile_graph(graph, inputs)

    compiled: Callable[..., Any] = torch.compile(module, backend=mark(backend), dynamic=dynamic)
    return compiled


def needs_settings(error: BackendCompilerFailed) -> bool:
    """Whether a call failed for lack of the settings."""
    return isinstance(error.inner_exception, OutsideSettings)


class ReachedLimit(NamedTuple):
    """A limit of Dynamo that was reached.

    Attributes:
        name: Name of the setting in ``torch._dynamo.config``.
        value: Its value.
        reasons: Returns Dynamo's reasons why each graph does not fit the call. Call it in the hook:
            from torch 2.14 on the frame is gone after the attempt.
        graphs: The guards of these graphs, which identify them.
    """

    name: str
    value: int
    reasons: Callable[[], list[str]]
    graphs: tuple[Any, ...]


SHARED_REGION = -1
"""The number of what every ``torch.compile`` shares that does not isolate its recompiles."""
# Variables that are read from Dynamo's function that compiles a frame.
_LOCALS = frozenset(
    {"code", "compiler_fn", "one_graph", "cache_entries", "cache_size", "frame", "compile_id"}
)


@lru_cache(maxsize=1)
def _require_locals() -> None:
    from torch._dynamo import convert_frame

    code = convert_frame._compile.__code__  # pyright: ignore[reportPrivateUsage]
    missing = _LOCALS - {*code.co_varnames, *code.co_cellvars}
    if missing:
        raise QuantfxError(
            f"torch {torch.__version__} has no '{min(missing)}' in "
            "torch._dynamo.convert_frame._compile, by which quantfx sees that Dynamo stops "
            "compiling",
            rule="torch-internals",
            site=min(missing),
            fix="use torch 2.13, or quantfx.quantize and result.module, without Dynamo",
        )


def call_before_compiles(hook: Callable[[], str]) -> None:
    """Make Dynamo call ``hook`` before each compile, of any backend; repeated requests count once.

    Raises:
        QuantfxError: this torch compiles frames differently; says what is missing.
    """
    from torch._dynamo import utils

    _require_locals()
    if hook not in (utils.get_hook_for_recompile_user_context() or ()):
        utils.register_hook_for_recompile_user_context(hook)


def values_of_compile() -> Mapping[str, Any] | None:
    """Return the variables with which Dynamo compiles a frame; None outside of that."""
    from torch._dynamo import convert_frame

    caller = inspect.currentframe()
    compiles = convert_frame._compile.__code__  # pyright: ignore[reportPrivateUsage]
    while caller is not None and caller.f_code is not compiles:
        caller = caller.f_back
    return None if caller is None else caller.f_locals


def reached_limit(values: Mapping[str, Any]) -> ReachedLimit | None:
    """Return the limit for which Dynamo will not compile.

    Args:
        values: Variables from ``values_of_compile``.
    """
    from torch._dynamo import config
    from torch._dynamo.cache_size import exceeds_recompile_limit
    from torch._dynamo.guards import get_and_maybe_log_recompilation_reasons

    exceeded, name = exceeds_recompile_limit(values["cache_size"], values["compile_id"])
    if not exceeded:
        return None
    entries: list[Any] = values["cache_entries"]

    def reasons() -> list[str]:
        found: list[str] = get_and_maybe_log_recompilation_reasons(
            entries, values["frame"], values["compiler_fn"], skip_logging=True
        )
        return found

    guards = tuple(entry.guard_manager for entry in entries)
    return ReachedLimit(name, int(getattr(config, name)), reasons, guards)


def wants_errors(values: Mapping[str, Any]) -> bool:
    """Whether the user asked for an error if something cannot be compiled (``fullgraph``)."""
    from torch._dynamo import config

    return bool(values["one_graph"] or config.fail_on_recompile_limit_hit)


def current_region() -> int:
    """Return the number of the group of compiles that share the current graphs."""
    from torch._C._dynamo import eval_frame

    return int(eval_frame.get_eval_frame_isolate_recompiles_id())


def is_compiled(code: CodeType) -> bool:
    """Whether there is compiled code for some call of a function, in any region.

    If several threads compile, Dynamo may mix up their regions (torch 2.13).
    """
    from torch._dynamo import eval_frame

    count: Any = eval_frame._get_total_cache_entry_count  # pyright: ignore[reportPrivateUsage]
    return bool(count(code))


def inner_backend(compiler: Any) -> Any:
    """Return the backend inside one of Dynamo's wrappers; None if it is no wrapper."""
    names = ("_torchdynamo_orig_backend", "compiler_fn")
    return next((x for name in names if (x := getattr(compiler, name, None)) is not None), None)


def leave_to_python(message: str) -> None:
    """Run this call of the frame, and its inner calls, in Python; Dynamo asks again next time.

    By itself Dynamo never asks again at its limit, whatever the object: other instances of a class
    would silently not be compiled any more.

    Args:
        message: The reason, for Dynamo's log.

    Raises:
        Unsupported: Dynamo's own error for a frame that it cannot compile.
    """
    from torch._dynamo import types
    from torch._dynamo.exc import Unsupported

    dynamo: Any = types
    action = dynamo.FrameAction
    error = Unsupported(message)
    error.frame_exec_strategy = dynamo.FrameExecStrategy(action.DEFAULT, action.RUN_ONLY)
    raise error


def current_translator() -> Any:
    """Return the translator of the frame that Dynamo is compiling; None if it is not compiling."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        return InstructionTranslator.current_tx()
    except (AttributeError, RuntimeError, AssertionError):
        return None


def compiling_backend() -> str | None:
    """Return the name of the backend that is compiling; None without a name or a backend."""
    translator = current_translator()
    if translator is None:
        return None
    compiler: Any = translator.output.compiler_fn
    name = getattr(compiler, "_compiler_name", None) or getattr(compiler, "compiler_name", None)
    return None if name is None else str(name)


def inductor_freezes() -> bool:
    """Whether Inductor, called now, would pack weights: freezing is on, and gradients are off."""
    return bool(torch._inductor.config.freezing) and not torch.is_grad_enabled()


def compile_ahead_of_time(program: ExportedProgram, package: Path, **settings: Any) -> Path:
    """Compile to a library with AOTInductor and return its package."""
    written = torch._inductor.aoti_compile_and_package(
        program, package_path=str(package), inductor_configs=settings
    )
    return Path(written)


def load_package(package: Path) -> Callable[..., Any]:
    """Return the model in a package of ``compile_ahead_of_time``."""
    return torch._inductor.aoti_load_package(str(package))


def force_strides() -> OpOverload[..., Any]:
    """Return Inductor's operator that gives a tensor a given order of strides."""
    from torch._inductor import inductor_prims  # registers itself with a running Inductor

    op: OpOverload[..., Any] = inductor_prims.force_stride_order
    return op


def lower_channels_last(op: OpOverload[..., Any], kernel: OpOverload[..., Any]) -> None:
    """Make Inductor compile ``op`` to a call of ``kernel`` with its result declared channels_last.

    Args:
        op: An operator of quantfx, with the schema of ``kernel``.
        kernel: A oneDNN convolution that Inductor knows.
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

"""The backends of ``torch.compile``: entry points of group ``torch_dynamo_backends``.

``torch.compile(model, backend="quantfx_x86")`` finds them without importing quantfx first. They are
not registered in any other way.

- ``quantfx_x86``, for Intel and AMD CPUs, observes the first calls in float, then computes in int8.
  Options: ``quantfx.dynamo.options.Options``, and those of the backend's own function.
- ``quantfx_xpu``, for Intel GPUs, is the same; it has never run on one, and is refused on a CPU.
- ``quantfx_native`` is the same for torch's native kernels, which run one by one. Recurrent layers
  break Dynamo's graph and stay float: ``quantfx.quantize`` takes them.
- ``quantfx_lower`` lowers a q/dq graph, e.g. ``quantfx.quantize(...).quantized``, to oneDNN's
  kernels. Options: ``strict``, ``check_weights`` and ``state``.

Each raises a ``QuantfxError`` if an option is wrong or a graph cannot be compiled as asked;
``torch.compile`` wraps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from quantfx.backends.inductor.compile_attempts import Attempt, attach_watch
from quantfx.backends.inductor.torch_internals import SHARED_REGION
from quantfx.dynamo.compile_frame import Plan, compile_frame
from quantfx.dynamo.internals import require_internals
from quantfx.dynamo.lower_frame import lower_frame
from quantfx.dynamo.options import Options, read_options
from quantfx.patterns.torch_version import warn_of_untested

Compiler = Callable[..., Callable[..., Any]]
_LOWER_OPTIONS = ("strict", "check_weights", "state")


def _compiler(
    name: str,
    read: Callable[[Mapping[str, Any] | None, str | None], Options],
    compile_graph: Callable[[GraphModule, Sequence[Any], Options], Callable[..., Any]],
) -> Compiler:
    """Return a backend with the signature that torch calls, now and in later versions."""

    def compiler(
        gm: GraphModule,
        example_inputs: Sequence[Any],
        *,
        options: Mapping[str, Any] | None = None,
        mode: str | None = None,
        **_: object,
    ) -> Callable[..., Any]:
        warn_of_untested()
        require_internals()
        attach_watch(compiler, watch)  # shared by all compiles from the first on
        return compile_graph(gm, example_inputs, read(options, mode))

    def watch(
        attempt: Attempt,
        *,
        options: Mapping[str, Any] | None = None,
        mode: str | None = None,
        **_: object,
    ) -> bool:
        if attempt.limit is not None:
            read(options, mode).state.note_limit(attempt)
        return attempt.region == SHARED_REGION

    compiler.__name__ = compiler.__qualname__ = name
    return compiler


def _quantizing_compiler(backend: str) -> Compiler:
    name = f"quantfx_{backend}"

    def compile_graph(
        gm: GraphModule, inputs: Sequence[Any], options: Options
    ) -> Callable[..., Any]:
        # Data that comes with the options is observed as a whole, before the first call.
        batches = 1 if options.calibration is not None else options.calibration_batches
        return compile_frame(gm, inputs, Plan(options.backend(backend), options, batches))

    def read(given: Mapping[str, Any] | None, mode: str | None) -> Options:
        return read_options(name, backend, given, mode)

    return _compiler(name, read, compile_graph)


quantfx_x86 = _quantizing_compiler("x86")
quantfx_xpu = _quantizing_compiler("xpu")
quantfx_native = _quantizing_compiler("native")
quantfx_lower = _compiler(
    "quantfx_lower",
    lambda given, mode: read_options("quantfx_lower", None, given, mode, _LOWER_OPTIONS),
    lower_frame,
)

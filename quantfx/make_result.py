"""From what a user asks for to a backend, and from a conversion to a result."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model
from quantfx.result import Result


def choose_backend(backend: str | Backend, config: ConfigLike | None) -> Backend:
    """Return the backend that a user asks for.

    Args:
        backend: A name, which means the backend for this host, or a backend.
        config: What is quantized how; None leaves the backend's own.

    Raises:
        ConfigError: the config is ill-formed.
        QuantfxError: there is no backend of that name.
    """
    chosen = backends.get(backend) if isinstance(backend, str) else backend
    return chosen if config is None else chosen.with_config(config)


def make_result(
    graph: GraphModule,
    quantized: GraphModule,
    backend: Backend,
    inputs: ExampleInputs,
    *,
    strict: bool,
    model: Model | None = None,
) -> Result:
    """Return the result of a conversion, lowered if the backend has kernels.

    Args:
        graph: The float graph, for its size.
        quantized: The q/dq graph.
        backend: What made it.
        inputs: What the model was captured with.
        strict: Whether ``Result.module`` refuses what misses its kernel.
        model: The float model, for ``Result.compare``; not kept alive.
    """
    lowering = backend.lowering(quantized) if backend.kernels else None
    report = backend.make_report(graph, quantized, lowering.sites if lowering else None)
    return Result(
        quantized,
        lowering=lowering,
        report=report,
        backend=backend,
        inputs=inputs,
        strict=strict,
        model=model,
    )

"""Choose the backend that a user asks for, and make a result of a conversion."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model
from quantfx.result import Result


def choose_backend(backend: str | Backend, config: ConfigLike | None) -> Backend:
    """Return the backend that a user asks for, with its config.

    Args:
        backend: A backend, or the name of one, made for this host.
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
        graph: The float graph; the report states its size.
        quantized: The q/dq graph.
        backend: The backend that made it.
        inputs: The inputs that the model was captured with.
        strict: Whether ``Result.module`` refuses sites that miss their kernels.
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

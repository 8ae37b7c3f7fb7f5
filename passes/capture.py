"""Turn the user's model into a plain, picklable graph module of ATen operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.canonicalize import CANONICALIZE
from quantfx.passes.clone import clone, detached, recompile
from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs import record_inputs
from quantfx.passes.pass_record import set_facts
from quantfx.passes.pipeline import Pipeline


def capture(
    model: nn.Module,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    pipeline: Pipeline = CANONICALIZE,
) -> GraphModule:
    """Return the canonical ATen graph of ``model`` in eval mode.

    The model is exported by ``torch.export`` (its training IR: linear, conv2d and batch_norm stay
    whole) and canonicalized. The result shares the parameters' storage with the model but never
    writes to it; buffers are copied, because a forward call may change them.

    Args:
        model: In eval mode; not changed.
        example_inputs: Positional arguments the model accepts; shapes are fixed to theirs.
        example_kwargs: Keyword arguments.
        dynamic_shapes: Dimensions that stay free, as for ``torch.export.export``.
        pipeline: What canonicalizes the exported graph.

    Raises:
        CaptureError: the model is in training mode, or torch.export rejects it.
    """
    _require_eval(model)
    if not isinstance(example_inputs, tuple):
        raise CaptureError(
            "example_inputs must be a tuple of positional arguments, not "
            f"{type(example_inputs).__name__}: write (x,) for one tensor"
        )
    try:
        program = torch.export.export(
            model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes, strict=False
        )
    except Exception as error:  # torch.export raises many kinds, all meaning "rejected"
        reason = str(error).strip().split("\n")[0]
        raise CaptureError(
            f"torch.export rejects {type(model).__name__}: {type(error).__name__}: {reason}"
        ) from error
    exported = program.module(check_guards=False)
    module = clone(_as_graph_module(exported), detached)
    set_facts(module, frozenset({"captured"}))
    recompile(module)
    module.eval()
    record_inputs(module, example_inputs, example_kwargs or {})
    return pipeline.run(module)


def _as_graph_module(module: nn.Module) -> GraphModule:
    if not isinstance(module, GraphModule):
        raise CaptureError(f"torch.export returned a {type(module).__name__}, not a GraphModule")
    return module


def _require_eval(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise CaptureError(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        raise CaptureError(
            f"{type(model).__name__} is in training mode ('{training[0] or 'the model'}'"
            f"{f' and {len(training) - 1} more' if len(training) > 1 else ''}): "
            "call model.eval() first"
        )

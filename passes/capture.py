"""Turn the user's model into a plain, picklable graph module of ATen operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.canonicalize import CANONICALIZE, CANONICALIZE_TRAINING
from quantfx.passes.clone import clone, detached, recompile, trainable
from quantfx.passes.errors import CaptureError
from quantfx.passes.export_graph import export_graph
from quantfx.passes.inputs import record_inputs
from quantfx.passes.pass_record import TRAINABLE, set_facts
from quantfx.passes.pipeline import Pipeline
from quantfx.passes.training_graph import training_graph


def capture(
    model: nn.Module,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    training: bool = False,
    pipeline: Pipeline | None = None,
) -> GraphModule:
    """Return the canonical ATen graph of ``model``, by default in eval mode.

    The model is exported by ``torch.export`` (its training IR: linear, conv2d and batch_norm stay
    whole) and canonicalized. The result shares the parameters' storage with the model but never
    writes to it; buffers are copied, because a forward call may change them.

    Args:
        model: In eval mode, unless ``training``; not changed.
        example_inputs: Positional arguments the model accepts; shapes are fixed to theirs.
        example_kwargs: Keyword arguments.
        dynamic_shapes: Dimensions that stay free, as for ``torch.export.export``.
        training: For quantization-aware training: batch norms and dropouts follow the ``train()``
            and ``eval()`` of the graph, and parameters ask for gradients. Submodules that are in
            eval mode while the model trains stay so.
        pipeline: What canonicalizes the exported graph; ``CANONICALIZE`` by default, or
            ``CANONICALIZE_TRAINING``.

    Raises:
        CaptureError: the model is in training mode and ``training`` was not asked for, torch.export
            rejects it, or it takes another path in training than in evaluation.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    if training:
        if torch.is_inference_mode_enabled():
            raise CaptureError("nothing trains in inference mode: capture outside of it")
        exported = training_graph(model, example_inputs, example_kwargs, dynamic_shapes)
    else:
        _require_eval(model)
        exported = export_graph(model, example_inputs, example_kwargs, dynamic_shapes)
    module = clone(exported, trainable if training else detached)
    set_facts(module, frozenset({"captured", TRAINABLE} if training else {"captured"}))
    recompile(module)
    module.train(training)
    record_inputs(module, example_inputs, example_kwargs or {})
    if pipeline is None:
        pipeline = CANONICALIZE_TRAINING if training else CANONICALIZE
    return pipeline.run(module)


def _require_eval(model: nn.Module) -> None:
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        raise CaptureError(
            f"{type(model).__name__} is in training mode ('{training[0] or 'the model'}'"
            f"{f' and {len(training) - 1} more' if len(training) > 1 else ''}): "
            "call model.eval() first, or capture with training=True to train it quantized"
        )

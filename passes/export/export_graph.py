"""Export a model with torch.export as a plain graph module."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.export.any_length import AnyLength, restore_operators
from quantfx.passes.export.export_reason import export_reason
from quantfx.passes.export.unknown_output import returns_cache, unknown_output
from quantfx.passes.export.watch_layout import LAYOUT_KEY, has_strides, watched_layout
from quantfx.passes.inputs.caches import register_dynamic_cache
from quantfx.passes.inputs.example import distinct
from quantfx.passes.inputs.leaves import Inputs, leaves_in


@contextmanager
def _unmarked(inputs: Inputs) -> Generator[None]:
    """Remove torch.export's marks of free dimensions on inputs, which it leaves if it fails.

    Otherwise the next export or torch.compile would treat these dimensions as free as well.
    """
    before = [(leaf, dict(vars(leaf))) for leaf in leaves_in(inputs) if isinstance(leaf, Tensor)]
    try:
        yield
    finally:
        for tensor, attributes in before:
            vars(tensor).clear()
            vars(tensor).update(attributes)


def export_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> GraphModule:
    """Return the graph of ``model`` in torch.export's training IR, as the model is now.

    Its ``meta[LAYOUT_KEY]`` says whether it is valid for the layout of these inputs only.

    Raises:
        CaptureError: torch.export rejects it.
    """
    given = args, kwargs or {}
    (args, kwargs), dynamic_shapes = distinct(model, given, dynamic_shapes)
    try:
        return _export(model, given, args, kwargs, dynamic_shapes)
    except CaptureError as error:
        if not returns_cache(error.__cause__) or not register_dynamic_cache():
            raise
    return _export(model, given, args, kwargs, dynamic_shapes)


def _export(
    model: nn.Module,
    given: Inputs,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
) -> GraphModule:
    try:
        with (
            _unmarked(given),
            warnings.catch_warnings(),
            AnyLength(),
            watched_layout(model) as reads,
        ):
            # torch's own recurrent layers keep a list of their weights, which export reads.
            warnings.filterwarnings(
                "ignore", message=r".*_flat_weights\[0\].*assigned during export"
            )
            program = torch.export.export(
                model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False
            )
        exported = program.module(check_guards=False)
    except Exception as error:  # torch.export raises many kinds, all meaning "rejected"
        reason = unknown_output(error) or export_reason(error)
        raise CaptureError(
            f"torch.export rejects {type(model).__name__}: {reason}", rule="export-rejects"
        ) from error
    if not isinstance(exported, GraphModule):
        message = f"torch.export returned a {type(exported).__name__}, not a GraphModule"
        raise CaptureError(message, rule="export-rejects")
    restore_operators(exported)
    exported.meta[LAYOUT_KEY] = reads.seen or has_strides(exported)
    return exported

"""What torch.export makes of a model, as a plain graph module."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.example import distinct
from quantfx.passes.export_reason import export_reason
from quantfx.passes.unknown_output import unknown_output
from quantfx.passes.watch_layout import LAYOUT_KEY, has_strides, watched_layout


def export_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> GraphModule:
    """Return the graph of ``model`` in torch.export's training IR, as the model is now.

    Its ``meta[LAYOUT_KEY]`` says whether it holds for the layout of these inputs only.

    Raises:
        CaptureError: torch.export rejects it.
    """
    (args, kwargs), dynamic_shapes = distinct(model, (args, kwargs or {}), dynamic_shapes)
    try:
        with warnings.catch_warnings(), watched_layout(model) as reads:
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
        raise CaptureError(f"torch.export rejects {type(model).__name__}: {reason}") from error
    if not isinstance(exported, GraphModule):
        raise CaptureError(f"torch.export returned a {type(exported).__name__}, not a GraphModule")
    exported.meta[LAYOUT_KEY] = reads.seen or has_strides(exported)
    return exported

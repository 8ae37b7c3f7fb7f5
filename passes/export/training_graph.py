"""The training graph of a model, with a note on every argument that depends on the mode."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.export.align_modes import FIX, align_modes
from quantfx.passes.export.export_graph import export_graph
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.model.state import restored

# Stands for ``momentum=None``, a cumulative average, which torch.export cannot trace: its factor
# is computed from a counter's value. No batch norm has a momentum below zero.
CUMULATIVE = -1.0
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def training_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> GraphModule:
    """Return the graph of ``model`` in training mode.

    The model is exported in both modes. The graphs may differ in literals, such as the ``train`` of
    a dropout, in layouts, and in noise on a tensor: `align_modes` notes these. A submodule in eval
    mode while the model trains stays in eval mode, such as a frozen batch norm; a model entirely in
    eval mode is exported as after ``train()``.

    Raises:
        CaptureError: torch.export rejects the model, or training and evaluation differ in another
            way; names the first operator.
    """
    twin = _twin(model)
    if not any(module.training for module in twin.modules()):
        twin.train()
    norms = [each for each in twin.modules() if isinstance(each, _BATCH_NORMS) and each.training]
    for norm in norms:
        if norm.momentum is None and norm.running_mean is not None:
            norm.momentum = CUMULATIVE
    rejected: CaptureError | None = None
    training = None
    with restored(twin, buffers=False):  # evaluation must not read what training cached
        try:
            training = export_graph(twin, args, kwargs, dynamic_shapes)
        except CaptureError as error:
            rejected = error
    evaluation = export_graph(twin.eval(), args, kwargs, dynamic_shapes)
    if training is None:
        raise CaptureError(
            f"{rejected}. This is in training mode; in evaluation mode capture works. A path "
            "chosen by random numbers, as in layerdrop, cannot be a graph",
            rule="export-rejects",
            fix="set its probability to 0",
        ) from rejected
    others = dict(all_graphs(evaluation))
    for path, graph_module in all_graphs(training):
        if path not in others:
            message = f"training runs a graph {path} that evaluation does not"
            raise CaptureError(message, rule="other-in-training", site=path, fix=FIX)
        align_modes(graph_module, others[path])
    return training


def _twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that shares the tensors, so that modes can be set on it."""
    tensors = [*model.parameters(), *model.buffers()]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:  # a user's module may raise anything when copied
        raise CaptureError(
            f"{type(model).__name__} cannot be copied, which capturing both modes "
            f"needs: {type(error).__name__}: {error}",
            rule="not-copyable",
        ) from error

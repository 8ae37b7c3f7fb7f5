"""Switch between train and eval mode in exported models, whose operators have the mode baked in."""

from __future__ import annotations

from types import MethodType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.graph.graphs import all_graphs
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.schema import set_argument

_MODE = "_exported_training"
# Operators with a mode, and the argument that holds it.
_SWITCHES = {
    torch.ops.aten.dropout.default: "train",
    torch.ops.aten.dropout_.default: "train",
    torch.ops.aten.batch_norm.default: "training",
}


class ModeError(QuantfxError, NotImplementedError):
    """``train()`` or ``eval()`` was called on an exported model, where it does nothing."""


def move_exported_model_to_eval(model: GraphModule) -> GraphModule:
    """Make dropout and batch norm of an exported ``model`` behave as in eval mode, in place."""
    return _move(model, training=False)


def move_exported_model_to_train(model: GraphModule) -> GraphModule:
    """Make dropout and batch norm of an exported ``model`` behave as in training, in place."""
    return _move(model, training=True)


def allow_exported_model_train_eval(model: GraphModule) -> GraphModule:
    """Let ``model.train()`` and ``model.eval()`` switch dropout and batch norm; return ``model``.

    Nothing else changes with them: a branch on ``self.training`` was decided at export.
    """
    _set_methods(model, _train, _eval)
    return model


def forbid_train_eval(model: GraphModule) -> None:
    """Make ``model.train()`` and ``model.eval()`` raise instead of doing nothing."""
    _set_methods(model, _refuse, _refuse)


def _move(model: GraphModule, *, training: bool) -> GraphModule:
    if getattr(model, _MODE, None) is training:
        return model
    setattr(model, _MODE, training)
    for _, graph_module in all_graphs(model):
        for target, argument in _SWITCHES.items():
            for node in graph_module.graph.find_nodes(op="call_function", target=target):
                set_argument(node, argument, training)
        graph_module.recompile()
    return model


def _train(model: GraphModule, mode: bool = True) -> GraphModule:
    return _move(model, training=mode)


def _eval(model: GraphModule) -> GraphModule:
    return _move(model, training=False)


def _refuse(model: nn.Module, mode: bool = True) -> NoReturn:
    raise ModeError(
        "train() and eval() do nothing on an exported model: its operators have the mode baked in.",
        rule="baked-mode",
        fix=(
            "call move_exported_model_to_train(model) or move_exported_model_to_eval(model), or "
            "allow_exported_model_train_eval(model) once to let the methods do that"
        ),
    )


def _set_methods(model: GraphModule, train: Any, evaluate: Any) -> None:
    # On the instance: each GraphModule has a class of its own, which copies do not share.
    model.train = MethodType(train, model)  # type: ignore[method-assign]
    model.eval = MethodType(evaluate, model)  # type: ignore[method-assign]

"""Modules of the user's model for which the exporter wrote no operator, such as an Identity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.fx import GraphModule

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.scopes import module_stack

_SILENT = "quantfx_silent_modules"


@dataclass(frozen=True)
class SilentModule:
    """A module without submodules that left no operator.

    Attributes:
        path: Its dotted path.
        kind: Name of its class.
        same_as: Another path of the same module, under which the exporter knows it; empty if none.
    """

    path: str
    kind: str
    same_as: str = ""


def find_silent_modules(model: nn.Module, exported: GraphModule) -> tuple[SilentModule, ...]:
    """Return the innermost modules of ``model`` that no node of its graph comes from."""
    heard = {
        path
        for _, graph_module in all_graphs(exported)
        for node in graph_module.graph.nodes
        for path, _ in module_stack(node)
    }
    named = [*model.named_modules(remove_duplicate=False)]
    known = {module: path for path, module in named if path in heard}
    return tuple(
        SilentModule(path, type(module).__name__, known.get(module, ""))
        for path, module in named
        if path and path not in heard and next(module.children(), None) is None
    )


def silent_modules(module: GraphModule) -> tuple[SilentModule, ...]:
    """Return the modules that are recorded with a graph."""
    found: tuple[SilentModule, ...] = module.meta.get(_SILENT, ())
    return found


def set_silent_modules(module: GraphModule, silent: tuple[SilentModule, ...]) -> None:
    """Record modules with a graph."""
    module.meta[_SILENT] = silent

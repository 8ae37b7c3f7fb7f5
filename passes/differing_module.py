"""Find the first submodule whose result a captured graph does not have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from quantfx.passes.canonical_order import module_stack
from quantfx.passes.input_copies import copied_inputs
from quantfx.passes.inputs import input_leaves


def differing_module(
    model: nn.Module,
    graph: GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tolerance: float,
) -> str:
    """Return a sentence that names the first submodule, in order of their calls, that differs.

    Submodules that are called once and return one tensor are compared.

    Args:
        model: The module captured; hooks are put on it and taken off.
        graph: What came of it.
        args: Positional inputs.
        kwargs: Keyword inputs.
        tolerance: Largest difference, relative to the largest magnitude.
    """
    with torch.no_grad():
        theirs = _module_results(model, *copied_inputs(args, kwargs))
        values = _Values(graph)
        copies = copied_inputs(args, kwargs)
        leaves = [leaf for _, leaf in input_leaves(graph, *copies)]
        values.run(*leaves, enable_io_processing=False)
    for path, result in theirs.items():
        mine = values.results.get(path)
        if mine is None or mine.shape != result.shape:
            continue
        bound = tolerance * float(result.abs().max()) if result.numel() else 0.0
        if not torch.allclose(mine, result, rtol=0.0, atol=bound, equal_nan=True):
            kind = type(model.get_submodule(path)).__name__
            return f"The first submodule that differs is '{path}' ({kind})"
    return (
        "No submodule differs while each is watched: the model takes another path when nothing "
        "watches it, such as the fast path of torch.nn.TransformerEncoder in eval mode "
        "(torch.backends.mha.set_fastpath_enabled(False) switches it off)"
    )


def _module_results(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def watch(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, result: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(result, Tensor) and not result.is_nested:
                results[path] = result.detach().clone()

        return hook

    handles = [m.register_forward_hook(watch(path)) for path, m in model.named_modules() if path]
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: result for path, result in results.items() if calls[path] == 1}


class _Values(Interpreter):
    """Keeps the last value computed in each submodule."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.results: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and note its value for every submodule it stands in."""
        value: Any = super().run_node(n)
        if isinstance(value, Tensor) and not value.is_nested:
            for path, _ in module_stack(n):
                self.results[path] = value.detach().clone()
        return value

"""Find the first submodule whose result differs in the captured graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from quantfx.passes.graph.scopes import module_stack
from quantfx.passes.inputs.leaves import input_leaves, leaves_in
from quantfx.passes.model.input_copies import copy_inputs

_WITH_FAST_PATH = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
_FAST_PATH = (
    ": in eval mode torch.nn.TransformerEncoder takes a fast path, which is not exported and gives "
    "zeros for padded positions (torch.backends.mha.set_fastpath_enabled(False) switches it off)"
)


def differing_module(
    model: nn.Module,
    graph: GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tolerance: float,
) -> str:
    """Return a sentence that names the first submodule, in order of calls, that differs.

    Only submodules that are called once and return one tensor are compared.

    Args:
        model: The captured module; hooks are added and removed again.
        graph: The captured graph.
        args: Positional inputs.
        kwargs: Keyword inputs.
        tolerance: Largest difference, relative to the largest magnitude.
    """
    with torch.no_grad():
        theirs, whole = _module_results(model, *copy_inputs(args, kwargs))
        values = _Values(graph)
        copies = copy_inputs(args, kwargs)
        leaves = [leaf for _, leaf in input_leaves(graph, *copies)]
        mine_whole = values.run(*leaves, enable_io_processing=False)
    for path, result in theirs.items():
        mine = values.results.get(path)
        if mine is not None and _differ(mine, result, tolerance):
            module = model.get_submodule(path)
            kind = type(module).__name__
            return f"The first submodule that differs is '{path}' ({kind}){_why(module)}"
    pairs = zip(leaves_in(mine_whole), leaves_in(whole), strict=False)
    if any(_differ(one, other, tolerance) for one, other in pairs):
        if _why(model):
            return f"It is {type(model).__name__} itself{_why(model)}"
        return (
            f"No submodule differs, so it is the forward of {type(model).__name__} itself: does it "
            "ask for torch.compiler.is_exporting(), is_compiling() or torch.is_grad_enabled() "
            "(to get its result without gradients, capture under torch.no_grad())?"
        )
    return (
        "Nothing differs while each submodule is watched: the model takes another path when it is "
        f"not watched{_FAST_PATH}"
    )


def _differ(mine: Any, theirs: Any, tolerance: float) -> bool:
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
        return False
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype or not theirs.numel():
        return False
    if not (theirs.is_floating_point() or theirs.is_complex()):
        return not torch.equal(mine, theirs)
    bound = tolerance * float(theirs.abs().max())
    return not torch.allclose(mine, theirs, rtol=0.0, atol=bound, equal_nan=True)


def _why(module: nn.Module) -> str:
    return _FAST_PATH if isinstance(module, _WITH_FAST_PATH) else ""


def _module_results(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Tensor], Any]:
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
        whole = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: result for path, result in results.items() if calls[path] == 1}, whole


class _Values(Interpreter):
    """Interpreter that keeps the last value computed in each submodule."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.results: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and note its value for every submodule that contains it."""
        value: Any = super().run_node(n)
        if isinstance(value, Tensor) and not value.is_nested:
            for path, _ in module_stack(n):
                self.results[path] = value.detach().clone()
        return value

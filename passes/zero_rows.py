"""Whether a graph computes what its model does where a free size is 0."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.eager_results import is_real, results_of, same_results
from quantfx.passes.input_contract import InputContract, InputForm, contract_of, set_contract
from quantfx.passes.inputs import Inputs, leaves_in, map_leaves
from quantfx.passes.model_state import restored
from quantfx.passes.size_expression import UnknownExpression, size_value
from quantfx.passes.state import preserved_state

_SEED = 0


def let_zero_in(model: nn.Module, graph: GraphModule, inputs: Inputs) -> None:
    """Put 0 into the range of each free size for which the graph does what the model does.

    torch's symbols stand for no 0 either, so that a model that asks for it was not seen to. Another
    export would cost as much as the first: model and graph are called, which is cheap where most
    tensors are empty. What comes out is empty as well, or its values compare.

    Args:
        model: What was captured.
        graph: Its contract, if any, is replaced.
        inputs: The example.
    """
    contract = contract_of(graph)
    if contract is None or not contract.checked:
        return
    tensors = [each for each in leaves_in(inputs) if isinstance(each, Tensor)]
    if not all(map(is_real, [*tensors, *model.parameters(), *model.buffers()])):
        return
    names = {name for name, (low, _) in contract.ranges.items() if low == 1}
    fit: set[str] = set()
    try:
        fit = {name for name in sorted(names) if _holds(model, graph, contract, inputs, {name})}
        if len(fit) > 1 and not _holds(model, graph, contract, inputs, fit):
            fit.clear()
    finally:
        set_contract(graph, _with_zero(contract, fit))


def _holds(
    model: nn.Module,
    graph: GraphModule,
    contract: InputContract,
    inputs: Inputs,
    names: set[str],
) -> bool:
    set_contract(graph, _with_zero(contract, names))
    sizes = dict.fromkeys(names, 0)
    with (
        restored(model),
        preserved_state(graph),
        _evaluating(model, graph),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(_SEED)
        try:
            forms = iter(contract.forms)
            empty = map_leaves(lambda leaf: _emptied(leaf, next(forms), sizes), inputs)
            return same_results(results_of(model, empty), results_of(graph, empty))
        except Exception:  # the model's or the graph's own: it has no result for 0
            return False


def _with_zero(contract: InputContract, names: set[str]) -> InputContract:
    ranges = {
        name: (0 if name in names else low, high) for name, (low, high) in contract.ranges.items()
    }
    return replace(contract, ranges=ranges)


def _emptied(leaf: Any, form: InputForm, sizes: Mapping[str, int]) -> Any:
    """Return ``leaf`` of those sizes, with values of its own: those of an example may be 0."""
    if not isinstance(leaf, Tensor):
        return leaf
    for place, size in enumerate(form.shape):
        if isinstance(size, str):
            try:
                leaf = leaf.narrow(place, 0, int(size_value(size, sizes)))
            except UnknownExpression:  # another's
                continue
    return torch.rand_like(leaf) if leaf.is_floating_point() else leaf.clone()


@contextmanager
def _evaluating(*modules: nn.Module) -> Generator[None]:
    """Let modules be in eval mode; afterwards each is as it was."""
    training = [each for module in modules for each in module.modules() if each.training]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True

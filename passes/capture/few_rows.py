"""Find out whether a graph agrees with its model where a free size is 1 or 0."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.contract import InputContract, InputForm, contract_of, set_contract
from quantfx.passes.inputs.leaves import Inputs, leaves_in, map_leaves
from quantfx.passes.inputs.size_expression import UnknownExpression, size_value
from quantfx.passes.model.eager_results import is_real, results_of, same_results
from quantfx.passes.model.state import ModelState, restored

_SEED = 0


def let_few_in(model: nn.Module, graph: GraphModule, inputs: Inputs) -> None:
    """Add 1 and 0 to the range of each free size for which graph and model agree.

    torch's symbols stand for neither, so export does not notice a model that asks for these sizes.
    Another export would cost as much as the first. Instead model and graph are called, which is
    cheap for so few rows. Values are compared; for empty results of size 0, shapes are.

    Args:
        model: The captured model.
        graph: The captured graph; its input contract, if any, is replaced.
        inputs: The example inputs.
    """
    contract = contract_of(graph)
    if contract is None or not contract.checked or not is_all_real(model, inputs):
        return
    with restored(model) as state:
        holds = partial(_holds, model, graph, inputs, state)
        for least in (1, 0):
            names = {name for name, (low, _) in contract.ranges.items() if low == least + 1}
            fit: set[str] = set()
            try:
                for name in sorted(names):
                    if holds(_require_least(contract, {name}, least), {name: least}):
                        fit.add(name)
                together = dict.fromkeys(fit, least)
                if len(fit) > 1 and not holds(_require_least(contract, fit, least), together):
                    fit.clear()
            finally:
                contract = _require_least(contract, fit, least)
                set_contract(graph, contract)


def is_all_real(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a model and its inputs hold values to compute with."""
    tensors = [each for each in leaves_in(inputs) if isinstance(each, Tensor)]
    return all(map(is_real, [*tensors, *model.parameters(), *model.buffers()]))


def agrees(model: nn.Module, graph: GraphModule, inputs: Inputs) -> bool:
    """Whether graph and model agree in evaluation, for inputs of these sizes."""
    with restored(model):
        return _agrees(model, graph, inputs)


def _agrees(model: nn.Module, graph: GraphModule, inputs: Inputs) -> bool:
    with (
        preserved_state(graph),
        _evaluating(model, graph),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(_SEED)
        try:
            inputs = map_leaves(_make_other_values, inputs)
            # Calling the graph itself would print its failure, which does not matter here.
            given = results_of(graph.forward, inputs)
            return same_results(results_of(model, inputs), given)
        except Exception:  # the model's or the graph's own error: no result for such sizes
            return False


def _holds(
    model: nn.Module,
    graph: GraphModule,
    inputs: Inputs,
    state: ModelState,
    contract: InputContract,
    sizes: Mapping[str, int],
) -> bool:
    set_contract(graph, contract)
    forms = iter(contract.forms)
    try:
        return _agrees(
            model, graph, map_leaves(lambda leaf: _cut(leaf, next(forms), sizes), inputs)
        )
    finally:
        state.restore()


def _require_least(contract: InputContract, names: set[str], least: int) -> InputContract:
    ranges = {
        name: (least if name in names else low, high)
        for name, (low, high) in contract.ranges.items()
    }
    return replace(contract, ranges=ranges)


def _cut(leaf: Any, form: InputForm, sizes: Mapping[str, int]) -> Any:
    """Return ``leaf`` cut to these sizes."""
    if not isinstance(leaf, Tensor):
        return leaf
    for place, size in enumerate(form.shape):
        if isinstance(size, str):
            try:
                leaf = leaf.narrow(place, 0, int(size_value(size, sizes)))
            except UnknownExpression:  # another's
                continue
    return leaf


def _make_other_values(leaf: Any) -> Any:
    """Return new values: the example's values may be 0."""
    if not isinstance(leaf, Tensor):
        return leaf
    return torch.rand_like(leaf) if leaf.is_floating_point() else leaf.clone()


@contextmanager
def _evaluating(*modules: nn.Module) -> Generator[None]:
    """Set modules to eval mode; restore each module's mode on exit."""
    training = [each for module in modules for each in module.modules() if each.training]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True

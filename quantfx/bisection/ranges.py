"""Ranges that calibration found, reused by later trials that observe the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import all_graphs, module_calls, referent
from quantfx.passes.observers.derived import DerivedObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.observers.statistics.sample import Leaves, pairs_of, set_pairs
from quantfx.passes.quant.spec import QuantSpec

# The float function, the tensors that one observer sees, and the spec.
Key: TypeAlias = tuple[int, frozenset[str], QuantSpec]


class Ranges:
    """Calibrates a prepared module, or gives its observers earlier records.

    An observer gets the record of an observer that saw the same tensors of the same float function
    under the same spec. If any observer of a module has no such record, the whole module is
    calibrated.

    Args:
        calibrate: Runs the batches through a prepared module; None if there are no batches.

    Attributes:
        calibrations: How often calibration was needed.
    """

    def __init__(self, calibrate: Callable[[GraphModule], object] | None) -> None:
        self._calibrate = calibrate
        self._known: dict[Key, Observer] = {}
        self._sample: tuple[tuple[str, Leaves], ...] = ()
        self.calibrations = 0

    def settle(self, prepared: GraphModule) -> None:
        """Give every observer of ``prepared`` its range."""
        if self._calibrate is None:
            return
        wanted = _observers(prepared)
        if wanted is not None and all(key in self._known for key, _ in wanted):
            for key, observer in wanted:
                vars(observer).update(vars(copy.deepcopy(self._known[key])))
            set_pairs(prepared, self._sample)  # the inputs are the same, whatever is observed
            return
        self.calibrations += 1
        self._calibrate(prepared)
        self._sample = pairs_of(prepared)
        self._known |= dict(wanted or ())


def _observers(prepared: GraphModule) -> list[tuple[Key, Observer]] | None:
    """Return the observers; None if some observer's record cannot be reused."""
    if len(list(all_graphs(prepared))) > 1:  # observers of branches share their records
        return None
    seen: dict[Observer, set[str]] = {}
    for node in prepared.graph.find_nodes(op="call_module"):
        called = referent(prepared, node)
        if isinstance(called, (DerivedObserver, PlaceholderObserver)):
            continue
        if not isinstance(called, Observer):
            return None
        if not called.frozen:
            seen.setdefault(called, set()).add(node.all_input_nodes[0].name)
    function = hash(tuple(_float_function(prepared)))
    return [((function, frozenset(names), each.spec), each) for each, names in seen.items()]


def _float_function(prepared: GraphModule) -> Iterator[tuple[str, str, str]]:
    """Yield what each node computes, skipping observers."""
    called = module_calls(prepared, nn.Module)
    observes = {node for node, module in called if isinstance(module, Observer)}
    names: dict[Node, str] = {}
    for node in prepared.graph.nodes:
        reads = node.all_input_nodes
        if node in observes:
            names[node] = names[reads[0]]
            continue
        names[node] = node.name
        yield node.name, str(node.target), ",".join(names[each] for each in reads)

"""The observers of one graph, and the number of calls that they have seen."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from threading import RLock
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.backends.backend import Backend
from quantfx.dynamo.bound_weights import BoundWeights
from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import all_graphs, module_calls, referent
from quantfx.passes.inputs.batch_check import all_finite
from quantfx.passes.observers.observer import Observer
from quantfx.patterns.errors import warn
from quantfx.patterns.schema import arguments, is_operator_call, overload

# Arguments that are numbers if shapes are fixed, and computed if shapes are free.
_SIZES = frozenset({"size", "shape", "end", "length"})


class Calibration:
    """The observers of one Python frame with one set of weights.

    Dynamo makes further graphs for other shapes; these share their observers here, so that all
    learn from each call. A frame that resumes after a graph break is another frame, and a module
    that is used twice has two sites in a graph.

    Args:
        backend: The backend that prepared the graph.
        code: The frame's code.
        weights: The constants of the graph.
        prepared: The first such graph, with observers.
        inputs: Sources of its inputs.

    Attributes:
        count: Calls observed.
        lock: Held while observing and converting.
    """

    def __init__(
        self,
        backend: Backend,
        code: CodeType,
        weights: BoundWeights,
        prepared: GraphModule,
        inputs: Sequence[str],
    ) -> None:
        self.backend = backend
        self.code = code
        self.weights = weights
        self.count = 0
        self.lock = RLock()
        self._signature = signature(prepared, inputs)
        self._observers = [module for _, _, module in observer_calls(prepared)]

    @property
    def needs_data(self) -> bool:
        """Whether some observer has yet to see a call to know its range."""
        recording = (each for each in self._observers if isinstance(each, Observer))
        return any(not each.frozen for each in recording)

    def share(self, prepared: GraphModule, inputs: Sequence[str]) -> bool:
        """Give ``prepared`` these observers; False if it computes something else."""
        if signature(prepared, inputs) != self._signature:
            return False
        for (owner, node, own), known in zip(
            observer_calls(prepared), self._observers, strict=True
        ):
            if not (isinstance(own, Observer) and own.frozen):
                setattr(owner, str(node.target), known)
        return True

    def restart_if_stale(self, prepared: GraphModule, where: str) -> bool:
        """Forget the observed calls if the weights changed; return whether they did.

        Args:
            prepared: The graph prepared with the current weights.
            where: Function and place of the graph, for the warning.
        """
        with self.lock:
            if not self.weights.changed:
                return False
            lost, self.count = self.count, 0
            self.weights.note()
            self._observers = [module for _, _, module in observer_calls(prepared)]
        if lost:
            warn(
                f"weights of {where} changed since it was observed: {lost} call(s) are "
                "forgotten, calibration starts again",
                rule="stale-weights",
                site=where,
                stacklevel=5,
            )
        return True

    def observe(self, prepared: GraphModule, args: Sequence[Any]) -> None:
        """Run one call through observers without gradients or autocast; keep the random state.

        Args:
            prepared: A graph that shares these observers.
            args: Its inputs; inputs that it writes to must be copies.

        Raises:
            CalibrationError: a tensor on the way is NaN or infinite; nothing was recorded.
        """
        with (
            self.lock,
            _unless_it_fails(self._observers),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            prepared(*args)
            self.count += 1


@contextmanager
def named(names: Sequence[str], args: Sequence[Any], where: str) -> Generator[None]:
    """Name the input that holds NaN or infinity if an observer in the block refuses them.

    Args:
        names: Names of the inputs.
        args: Values of the inputs.
        where: The number of the call, in words.
    """
    try:
        yield
    except CalibrationError as error:
        for name, value in zip(names, args, strict=True):
            if not all_finite(value):
                raise CalibrationError(
                    f"{where}: input '{name}' holds NaN or infinity: {error}; the call was not "
                    "observed",
                    rule="not-finite",
                    site=name,
                ) from None
        raise


@contextmanager
def _unless_it_fails(observers: list[nn.Module]) -> Generator[None]:
    """Restore the observers' state if the block raises."""
    # References to an observer still refer to it, not to a copy.
    shared: dict[int, Any] = {id(each): each for each in observers}
    saved = copy.deepcopy([vars(each) for each in observers], shared)
    try:
        yield
    except BaseException:
        for observer, state in zip(observers, saved, strict=True):
            vars(observer).update(state)
        raise


def observer_calls(module: GraphModule) -> list[tuple[GraphModule, Node, nn.Module]]:
    """Return the calls of observers, in graph order."""
    return [
        (graph_module, node, called)
        for _, graph_module in all_graphs(module)
        for node, called in module_calls(graph_module, nn.Module)
    ]


def signature(prepared: GraphModule, inputs: Sequence[str]) -> tuple[object, ...]:
    """Return what ``prepared`` computes and observes, operator by operator, ignoring sizes.

    Graphs that share ranges must have equal signatures. Dynamo makes a graph for each value of a
    flag or number that the model takes, and each may see other values at the same layer.

    Args:
        prepared: A graph with observers.
        inputs: Sources of its inputs, e.g. ``L['x']``.
    """
    groups: dict[int, int] = {}
    rows: list[object] = []
    for path, graph_module in all_graphs(prepared):
        numbers: dict[Node, int] = {}
        sources = iter(inputs)
        for node in graph_module.graph.nodes:
            source = next(sources, "") if node.op == "placeholder" and not path else ""
            value = node.meta.get("val")
            kinds = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
            if isinstance(value, kinds) and not isinstance(value, Tensor):
                continue  # computed from shapes, or fixed where these are
            numbers[node] = len(numbers)
            rows.append((path, source, *_row(graph_module, node, numbers, groups)))
    return tuple(rows)


def _row(
    module: GraphModule, node: Node, numbers: dict[Node, int], groups: dict[int, int]
) -> tuple[object, ...]:
    if node.op == "call_module":
        observer = referent(module, node)
        target: object = groups.setdefault(id(observer), len(groups))
        return (target, getattr(observer, "spec", None), _plain(node.args, numbers))
    if not is_operator_call(node):
        target = "" if node.op == "placeholder" else str(node.target)
        return (node.op, target, _plain(node.args, numbers), _plain(node.kwargs, numbers))
    names = tuple(arguments(overload(node)))
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    kept = {name: value for name, value in given.items() if name not in _SIZES}
    return (node.op, str(node.target), _plain(kept, numbers))


def _plain(value: Any, numbers: dict[Node, int]) -> object:
    """Return an argument in hashable form, with nodes as their numbers."""
    if isinstance(value, Node):
        return ("node", numbers.get(value))
    if isinstance(value, dict):
        return tuple((str(key), _plain(each, numbers)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each, numbers) for each in value)
    return repr(value)

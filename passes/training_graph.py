"""The graph of a model in training, with a note on every argument that depends on the mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.canonical_order import module_scope
from quantfx.passes.errors import CaptureError
from quantfx.passes.export_graph import export_graph
from quantfx.passes.graphs import all_graphs
from quantfx.passes.model_state import restored
from quantfx.passes.remove_dropout import DROPOUTS
from quantfx.patterns.schema import argument_value, arguments, is_aten_call, overload

MODE_KEY = "quantfx_mode"
# Stands for ``momentum=None``, a cumulative average, which torch.export cannot trace: its factor
# is computed from a counter's value. No batch norm has a momentum below zero.
CUMULATIVE = -1.0
COUNTS = torch.ops.aten.add_.Tensor
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_FIX = (
    "only arguments of operators may depend on the mode, as in nn.Dropout and nn.BatchNorm2d. "
    "Write it so, or call eval() on that submodule before the capture to train it as in evaluation"
)


def training_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> GraphModule:
    """Return the graph of ``model`` in training mode.

    The model is exported in both modes. The graphs may differ in literals, such as the ``train`` of
    a dropout: each node of the result lists these under ``meta[MODE_KEY]``. A submodule that is in
    eval mode while the model trains stays so, as a frozen batch norm; a model that is in eval mode
    altogether is exported as after ``train()``.

    Raises:
        CaptureError: torch.export rejects the model, or it does something else in training than in
            evaluation; names the first operator.
    """
    twin = _twin(model)
    if not any(module.training for module in twin.modules()):
        twin.train()
    norms = [each for each in twin.modules() if isinstance(each, _BATCH_NORMS) and each.training]
    for norm in norms:
        if norm.momentum is None and norm.running_mean is not None:
            norm.momentum = CUMULATIVE
    with restored(twin, buffers=False):  # what it caches at a first call, evaluation has to compute
        training = export_graph(twin, args, kwargs, dynamic_shapes)
    evaluation = export_graph(twin.eval(), args, kwargs, dynamic_shapes)
    others = dict(all_graphs(evaluation))
    for path, graph_module in all_graphs(training):
        if path not in others:
            raise CaptureError(f"training runs a graph {path} that evaluation does not: {_FIX}")
        _compare(graph_module, others[path])
    return training


def counter_of(node: Node) -> Node | None:
    """Return the ``num_batches_tracked`` that ``node`` adds to; None if it does anything else.

    A batch norm that is called twice adds to the result of its first addition.
    """
    counter: Any = node
    while isinstance(counter, Node) and counter.target is COUNTS:
        counter = counter.args[0]
    if counter is node or not isinstance(counter, Node) or counter.op != "get_attr":
        return None
    is_counter = str(counter.target).rpartition(".")[2] == "num_batches_tracked"
    return counter if is_counter else None


def _twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules that holds the very tensors, so that modes can be set on it."""
    tensors = [*model.parameters(), *model.buffers()]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:  # whatever a module of the user's cannot copy
        raise CaptureError(
            f"{type(model).__name__} cannot be copied, which capturing both modes needs: "
            f"{type(error).__name__}: {error}"
        ) from error


def _compare(training: GraphModule, evaluation: GraphModule) -> None:
    """Write the notes on the nodes of ``training``."""
    twins: dict[Node, Node] = {}
    ours = [node for node in training.graph.nodes if not _is_passive(node)]
    theirs = [node for node in evaluation.graph.nodes if not _is_passive(node)]
    _pair_inputs(training, evaluation, twins)
    rest = iter(theirs)
    other = next(rest, None)
    for node in ours:
        if _is_added_dropout(node, other, twins):
            twins[node] = twins[node.all_input_nodes[0]]
            node.meta[MODE_KEY] = ("train",)
            continue
        if other is None or node.target != other.target:
            raise CaptureError(_differs(node, other))
        twins[node] = other
        names = tuple(_changing(node, other, twins))
        if names:
            node.meta[MODE_KEY] = names
        other = next(rest, None)
    if other is not None:
        raise CaptureError(_differs(None, other))


def _is_added_dropout(node: Node, other: Node | None, twins: Mapping[Node, Node]) -> bool:
    """Whether ``node`` is a dropout that evaluation leaves out, as nn.MultiheadAttention does."""
    if node.target not in DROPOUTS or argument_value(node, "train") is not True:
        return False
    source = twins.get(node.all_input_nodes[0])
    same = other is not None and other.target == node.target and _same_value(source, other.args[0])
    return source is not None and not same


def _is_passive(node: Node) -> bool:
    return node.op in ("placeholder", "get_attr") or counter_of(node) is not None


def _pair_inputs(training: GraphModule, evaluation: GraphModule, twins: dict[Node, Node]) -> None:
    for op in ("placeholder", "get_attr"):
        found = {node.target: node for node in evaluation.graph.find_nodes(op=op)}
        for node in training.graph.find_nodes(op=op):
            if node.target in found:
                twins[node] = found[node.target]


def _changing(node: Node, other: Node, twins: Mapping[Node, Node]) -> Iterator[str]:
    """Yield the arguments that are literals, and others in evaluation."""
    for name, ours, theirs in _arguments(node, other):
        if _same(ours, theirs, twins):
            continue
        is_flag = ours is True and theirs is False
        is_probability = isinstance(ours, float) and theirs == 0.0
        if not is_flag and not is_probability:
            raise CaptureError(
                f"{node.name}.{name} ({node.target}){_where(node)} is {ours} in training and "
                f"{theirs} in evaluation: {_FIX}"
            )
        yield name


def _arguments(node: Node, other: Node) -> Iterator[tuple[str, Any, Any]]:
    if is_aten_call(node):
        for name in arguments(overload(node)):
            yield name, argument_value(node, name), argument_value(other, name)
    else:
        yield "args", node.args, other.args
        yield "kwargs", node.kwargs, other.kwargs


def _same(ours: Any, theirs: Any, twins: Mapping[Node, Node]) -> bool:
    if isinstance(ours, Node):
        return _same_value(twins.get(ours), theirs)
    if isinstance(ours, (list, tuple)):
        return (
            isinstance(theirs, (list, tuple))
            and len(ours) == len(theirs)
            and all(_same(a, b, twins) for a, b in zip(ours, theirs, strict=True))
        )
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(
            _same(value, theirs[key], twins) for key, value in ours.items()
        )
    return type(ours) is type(theirs) and bool(ours == theirs)


def _same_value(twin: Node | None, other: Any) -> bool:
    """Whether evaluation computes the same for both.

    A dropout returns its very input there, and tracers take what they saw last for the name of a
    tensor: from torch 2.14 on, whoever reads the input behind a dropout reads the dropout.
    """
    return twin is not None and isinstance(other, Node) and _undropped(twin) is _undropped(other)


def _undropped(node: Node) -> Node:
    while node.target in DROPOUTS and argument_value(node, "train") is False:
        node = node.all_input_nodes[0]
    return node


def _differs(node: Node | None, other: Node | None) -> str:
    here = "nothing" if node is None else f"{node.target}{_where(node)}"
    there = "nothing" if other is None else f"{other.target}{_where(other)}"
    return f"the model calls {here} in training where it calls {there} in evaluation: {_FIX}"


def _where(node: Node) -> str:
    scope = module_scope(node)
    return f" in module '{scope}'" if scope else ""

"""Capture a Dynamo graph as passes need it: ATen operators, weights as constants."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Graph, GraphModule, Node

from quantfx.dynamo.bound_weights import BoundWeights, is_released
from quantfx.dynamo.internals import (
    SWITCHES_GRADIENTS,
    Frame,
    GraphInput,
    graph_inputs,
    guard_identity,
    guard_mode,
    owner_of,
    specialize_floats,
    trace,
)
from quantfx.passes.capture.canonicalize import CANONICALIZE
from quantfx.passes.errors import CaptureError
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.clone import clone, recompile, set_tensor
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import set_facts
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.non_data import mark_non_data
from quantfx.passes.graph.scopes import op_name
from quantfx.passes.model.trains import trains
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.schema import arguments, is_operator_call, overload, resolve_op

# Arguments where operators read a layer's tensors. A buffer elsewhere, such as a cache or the
# user's own running mean, may be another object in each call.
_LAYER_ARGUMENTS = frozenset({"weight", "bias", "running_mean", "running_var", "params"})
# Python functions that a graph applies to sizes and tuples.
_ON_NUMBERS = frozenset(
    value for module in (operator, math) for value in vars(module).values() if callable(value)
) | {value for name, value in vars(torch).items() if name.startswith("sym_")}
_SYM_SIZE = resolve_op("aten.sym_size.int")
_STEP = re.compile(
    r"\._modules\['([^']+)'\]|\._(?:parameters|buffers)\['([^']+)'\]|\.(\w+)|\[(\d+)\]"
)
_ROOT = re.compile(r"^(?:[LG]\['[^']*'\])")


@dataclass(frozen=True, kw_only=True)
class FrameGraph:
    """One graph that Dynamo found in a model, captured.

    Attributes:
        code: Code of its Python frame; the frame's variables, such as the model, are not kept.
        where: The frame's function and place.
        outermost: Whether its inputs come from the user, not from another part of the model.
        graph: Canonical; weights and buffers of layers are constants under their dotted names.
        run: Dynamo's own graph, which computes exactly what the model computes; takes all inputs.
        inputs: Positions of Dynamo's inputs that ``graph`` takes.
        sources: Sources of these inputs, e.g. ``L['x']``.
        written: Positions of Dynamo's inputs that the graph writes to.
        weights: Tensors that became constants.
        training: Why the graph is for training; empty if it is not.
    """

    code: CodeType
    where: str
    outermost: bool
    graph: GraphModule
    run: Callable[..., Any]
    inputs: tuple[int, ...]
    sources: tuple[GraphInput, ...]
    written: frozenset[int]
    weights: BoundWeights
    training: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs of ``graph`` in messages."""
        return tuple(_readable_name(each.source) or each.node.name for each in self.sources)


def capture_frame(
    module: GraphModule, inputs: Sequence[Any], frame: Frame, *, all_static: bool = False
) -> FrameGraph:
    """Capture a graph in a running ``torch.compile``.

    Dynamo passes parameters and buffers as inputs and shares the compiled graph between instances
    of a class. Inputs that become constants here are guarded by identity, so that another instance,
    or a replaced parameter, compiles its own graph. The mode of modules that own constants is
    guarded too.

    Args:
        module: Graph from Dynamo; not changed.
        inputs: Inputs from Dynamo, with the model's own tensors among them.
        frame: The frame that is being compiled.
        all_static: Make every module's tensor a constant, not only tensors of layers.

    Raises:
        CaptureError: the graph cannot be expressed in ATen operators.
    """
    specialize_floats(module)
    sources = graph_inputs(module)
    traced = _trace(module, frame)
    placeholders = list(traced.graph.find_nodes(op="placeholder"))
    changing = set(overwritten(traced.graph))
    bound: list[tuple[GraphInput, Node, Tensor]] = []
    for source, node, value in zip(sources, placeholders, inputs, strict=True):
        if not source.static or not isinstance(value, Tensor):
            continue
        if node not in changing and (all_static or _belongs_to_layer(value, node)):
            bound.append((source, node, value))
        else:
            mark_non_data(node)
    _require_memory(bound, frame)
    owners = _guard([source.node for source, _, _ in bound], frame)
    weights = BoundWeights(_bind(traced, bound), _counters(owners))
    _read_sizes(traced)
    left = set(traced.graph.find_nodes(op="placeholder"))
    kept = [index for index, node in enumerate(placeholders) if node in left]
    return FrameGraph(
        code=frame.code,
        where=frame.where,
        outermost=frame.outermost and not frame.resumes,
        graph=_canonical(traced),
        run=module.forward,
        inputs=tuple(kept),
        sources=tuple(sources[i] for i in kept),
        written=frozenset(index for index, node in enumerate(placeholders) if node in changing),
        weights=weights,
        training=_trains(traced) or _in_training(owners),
    )


def _trace(module: GraphModule, frame: Frame) -> GraphModule:
    """Return Dynamo's graph as ATen operators, without mode switches that have no effect."""
    try:
        traced = trace(module)
    except CaptureError as error:
        place = f"the graph of {frame.where}"
        raise error.within(place, CaptureError, told="it cannot be traced: ") from error
    except Exception as error:  # any exception means that this graph cannot be traced
        reason = str(error).strip().split("\n")[0]
        message = f"the graph of {frame.where} cannot be traced: {type(error).__name__}: {reason}"
        raise CaptureError(message, rule="not-traced", site=frame.where) from error
    for _, graph_module in all_graphs(traced):
        _drop_modes(graph_module.graph)
        _require_operators(graph_module.graph, frame)
    return traced


def _require_memory(bound: list[tuple[GraphInput, Node, Tensor]], frame: Frame) -> None:
    released = [source.source for source, _, tensor in bound if is_released(tensor)]
    if released:
        raise QuantfxError(
            f"{frame.where} needs another graph, for inputs of a form or a mode (gradients, "
            "autocast) that it was not compiled for, and the float weights were released "
            f"({_join_name(released[0]) or released[0]})",
            rule="released-weights",
            site=frame.where,
            fix="release them once all kinds of inputs were seen",
        )


def _drop_modes(graph: Graph) -> None:
    """Erase switches of the gradient mode, which do not affect inference, and idle regions.

    These switch autocast off where it is off: Dynamo guards that it is. Transformers have them
    around operators that must not be rounded, such as rotary embeddings.
    """
    for node in graph.find_nodes(op="call_function", target=SWITCHES_GRADIENTS):
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op != "call_function" or op_name(node) != "_enter_autocast":
            continue
        device, _, enabled, *_ = node.args
        if enabled is False and not torch.is_autocast_enabled(str(device)):
            for leaves_it in list(node.users):
                graph.erase_node(leaves_it)
            graph.erase_node(node)


def _require_operators(graph: Graph, frame: Frame) -> None:
    """Refuse calls that compute nothing, such as entering an autocast region."""
    for node in graph.nodes:
        plain = isinstance(node.target, (OpOverload, HigherOrderOperator))
        if node.op == "call_function" and not plain and node.target not in _ON_NUMBERS:
            raise CaptureError(
                f"the graph of {frame.where} calls {op_name(node)}, which is not an operator",
                rule="not-an-operator",
                site=frame.where,
                fix=(
                    "use quantfx.quantize, which takes models with regions of autocast or "
                    "inference mode"
                ),
            )


def _belongs_to_layer(value: Tensor, node: Node) -> bool:
    if isinstance(value, nn.Parameter):
        return bool(node.users)
    return bool(node.users) and all(_is_layer_argument(user, node) for user in node.users)


def _is_layer_argument(user: Node, node: Node) -> bool:
    if not is_operator_call(user):
        return False
    for argument in arguments(overload(user)).values():
        given = user.args[argument.position : argument.position + 1]
        values = (*given, user.kwargs.get(argument.name))
        if any(value is node or _holds(value, node) for value in values):
            return argument.name in _LAYER_ARGUMENTS
    return False


def _holds(value: object, node: Node) -> bool:
    return isinstance(value, (list, tuple)) and any(each is node for each in value)


def _guard(nodes: list[Node], frame: Frame) -> list[nn.Module]:
    """Guard inputs that become constants; return the modules that own them."""
    owners: dict[int, nn.Module] = {}
    for node in nodes:
        guard_identity(node, frame)
        owner = owner_of(node, frame)
        if owner is not None and id(owner) not in owners:
            owners[id(owner)] = owner
            guard_mode(node)
    return list(owners.values())


def _in_training(owners: list[nn.Module]) -> str:
    training = (owner for owner in owners if owner.training)
    return next((f"{type(owner).__name__} is in training mode" for owner in training), "")


def _counters(owners: list[nn.Module]) -> list[tuple[str, Tensor]]:
    """Return the counters of batch norms' training steps, with which their statistics move."""
    return [
        (f"the running statistics of a {type(owner).__name__}", count)
        for owner in owners
        if isinstance(count := getattr(owner, "num_batches_tracked", None), Tensor)
    ]


def _bind(
    module: GraphModule, found: list[tuple[GraphInput, Node, Tensor]]
) -> list[tuple[str, Tensor]]:
    """Replace placeholders by constants; return these with their names."""
    named: list[tuple[str, Tensor]] = []
    for source, node, value in found:
        name = _free_name(module, _join_name(source.source) or node.name)
        set_tensor(module, name, value)
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        constant.meta = {"val": node.meta.get("val")}
        node.replace_all_uses_with(constant)
        module.graph.erase_node(node)
        named.append((name, value))
    return named


def _free_name(module: GraphModule, name: str) -> str:
    """Return ``name``, with a number if the name or a part of it is taken."""
    count = 0
    candidate = name
    while not _is_free(module, candidate):
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _is_free(module: nn.Module, name: str) -> bool:
    *path, last = name.split(".")
    owner: Any = module
    for step in path:
        owner = getattr(owner, step, None)
        if owner is None:
            return True
        if not isinstance(owner, nn.Module) or isinstance(owner, GraphModule):
            return False
    return not hasattr(owner, last)


def _join_name(source: str) -> str:
    """Return ``layers.0.weight`` for ``L['self']._modules['layers']._modules['0']...``."""
    rest = _ROOT.sub("", source)
    steps = [step for match in _STEP.finditer(rest) for step in match.groups() if step]
    if "".join(match.group(0) for match in _STEP.finditer(rest)) != rest or not steps:
        return ""
    if steps[0] == "_orig_mod":
        steps = steps[1:]
    return ".".join(steps) if all(re.fullmatch(r"\w+", step) for step in steps) else ""


def _readable_name(source: str) -> str:
    """Return ``x`` for ``L['x']``."""
    return re.sub(r"^[LG]\['([^']*)'\]", r"\1", source)


def _read_sizes(module: GraphModule) -> None:
    """Compute sizes that come as inputs from the tensors that have them.

    ``x[s0, 8], s0`` becomes ``x, sym_size(x, 0)``: this is export's form, and can later be compiled
    for other sizes. Sizes that no tensor has stay inputs.
    """
    editor = Editor(module, "read-sizes")
    placeholders = list(module.graph.find_nodes(op="placeholder"))
    first = next(node for node in module.graph.nodes if node.op not in ("placeholder", "get_attr"))
    for node in placeholders:
        value = node.meta.get("val")
        if not isinstance(value, torch.SymInt):
            continue
        found = _dimension(placeholders, value)
        if not node.users:
            editor.erase(node)
        elif found is not None:
            size = editor.call(_SYM_SIZE, found, like=found[0], before=first, val=value)
            node.replace_all_uses_with(size)
            editor.erase(node)


def _dimension(placeholders: list[Node], size: torch.SymInt) -> tuple[Node, int] | None:
    """Return the tensor and the dimension that have ``size``, by the same symbol."""
    symbol = str(size)
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            for dimension, each in enumerate(value.shape):
                if isinstance(each, torch.SymInt) and str(each) == symbol:
                    return node, dimension
    return None


def _canonical(traced: GraphModule) -> GraphModule:
    module = clone(traced, "buffers", gradients=False)
    set_facts(module, frozenset({"captured"}))
    recompile(module)
    module.train(False)
    return CANONICALIZE.run(module)


def _trains(module: GraphModule) -> str:
    """Return the operator that behaves as in training, if any."""
    for _, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            if what := trains(node):
                return f"{what} is in training mode"
    return ""

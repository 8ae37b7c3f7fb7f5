"""Find, of every call of a graph in training, what it is in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.aliasing import overwritten, writes_to
from quantfx.passes.batch_counter import counter_of
from quantfx.passes.canonical_order import module_scope
from quantfx.passes.errors import CaptureError
from quantfx.passes.graphs import attribute
from quantfx.passes.remove_asserts import ASSERT
from quantfx.passes.remove_dropout import DROPOUTS, IN_PLACE_DROPOUTS
from quantfx.passes.same_values import (
    Value,
    pairs_of_arguments,
    same,
    sizes_of,
    value_of,
)
from quantfx.passes.training_noise import is_random, mark, reads
from quantfx.patterns.schema import argument_value

MODE_KEY = "quantfx_mode"
FIX = (
    "arguments of operators may depend on the mode, as in nn.Dropout and nn.BatchNorm2d, so may "
    "layouts, and noise on a tensor may be for training alone, as in stochastic depth. Write it "
    "so, or call eval() on that submodule before the capture to train it as in evaluation"
)


@dataclass(frozen=True)
class _Alone:
    """A call that only training does.

    Attributes:
        root: The one tensor it is computed from, beside random numbers; None if from these only.
        is_noisy: Whether it depends on random numbers.
        cause: The first such call on its way, and what evaluation does in that place.
    """

    root: Node | None
    is_noisy: bool
    cause: tuple[Node, Node | None]


@dataclass
class _Alignment:
    """What is known of two graphs.

    Attributes:
        written: Tensors of either graph that something writes to later.
        twins: Of the nodes of training, what they are in evaluation.
        values: Of the nodes of evaluation, what they stand for.
        alone: The calls that only training does.
    """

    written: set[Node]
    twins: dict[Node, Value] = field(default_factory=dict[Node, Value])
    values: dict[Node, Value] = field(default_factory=dict[Node, Value])
    alone: dict[Node, _Alone] = field(default_factory=dict[Node, _Alone])

    def changing(self, node: Node, other: Node) -> tuple[str, ...] | None:
        """Return the arguments that follow the mode; None if ``other`` is another call."""
        if node.target != other.target:
            return None
        names: list[str] = []
        for name, ours, theirs in pairs_of_arguments(node, other):
            if not same(ours, theirs, self.is_same):
                if not _follows_mode(ours, theirs):
                    return None
                names.append(name)
        return tuple(names)

    def is_same(self, ours: Node, theirs: Node) -> bool:
        """Whether evaluation computes the same for both."""
        value = self.values.get(theirs)
        alone = self.alone.get(ours)
        if alone is None:
            return value is not None and self.twins.get(ours) == value
        if alone.root is None or not alone.is_noisy or not _same_form(ours, alone.root):
            return False
        return self.twins[alone.root] == value

    def pair(self, node: Node, other: Node, names: tuple[str, ...]) -> None:
        """Note that ``node`` is ``other`` in evaluation, which leaves out the noise on inputs."""
        for source in node.all_input_nodes:
            alone = self.alone.get(source)
            if alone is not None and alone.root is not None:
                self._leave_out(source, alone.root)
        self.twins[node] = other
        if names:
            # One that is off does not read its p.
            is_dropout = node.target in (*DROPOUTS, *IN_PLACE_DROPOUTS)
            node.meta[MODE_KEY] = ("train",) if is_dropout else names

    def leave(self, node: Node, other: Node | None) -> None:
        """Take ``node`` for one that only training does.

        Raises:
            CaptureError: it is no noise on one tensor.
        """
        roots: dict[Node, None] = {}
        noisy = is_random(node)
        cause = (node, other)
        for source in reads(node):
            alone = self.alone.get(source)
            if alone is None and isinstance(self.twins.get(source), str):
                continue
            root = source if alone is None else alone.root
            if root is not None:
                roots[root] = None
            if alone is not None:
                noisy = noisy or alone.is_noisy
                cause = alone.cause if alone.root is not None else cause
        outside = [each for each in writes_to(node) if each not in self.alone]
        if node.op != "call_function" or len(roots) > 1 or outside:
            raise CaptureError(self.told(*cause))
        self.alone[node] = _Alone(next(iter(roots), None), noisy, cause)

    def told(self, node: Node | None, other: Node | None) -> str:
        """Say how the graphs differ where training calls ``node`` and evaluation ``other``."""
        if node is not None and other is not None and node.target == other.target:
            for name, ours, theirs in pairs_of_arguments(node, other):
                if _is_literal(ours) and not same(ours, theirs, self.is_same):
                    return (
                        f"{node.name}.{name} ({node.target}){_where(node)} is {ours} in training "
                        f"and {theirs} in evaluation: {FIX}"
                    )
        here = "nothing" if node is None else f"{node.target}{_where(node)}"
        there = "nothing" if other is None else f"{other.target}{_where(other)}"
        if here == there:
            here += f" ({node}, of other tensors)"
        return f"the model calls {here} in training where it calls {there} in evaluation: {FIX}"

    def _leave_out(self, node: Node, root: Node) -> None:
        reason = mark(node, root, self.alone)
        if reason is not None:
            raise CaptureError(
                f"{node.name} ({node.target}){_where(node)} puts noise on {root.name} in training "
                f"only, but {reason}: draw random numbers for each tensor by itself, from its own "
                f"sizes. {FIX}"
            )
        self.twins[node] = self.twins[root]
        del self.alone[node]


def align_modes(training: GraphModule, evaluation: GraphModule) -> None:
    """Note on the nodes of ``training`` what of them depends on the mode.

    Calls are compared in order, by operator and by the values of their arguments. Seen through are
    copies and views of a value, so that layouts may differ, and dropouts that are off. Arguments
    that follow the mode are listed in ``meta[MODE_KEY]``; random numbers that only training puts
    on a tensor are marked for ``training_noise``.

    Raises:
        CaptureError: the graphs compute something else; names the first operator.
    """
    written = {*overwritten(training.graph), *overwritten(evaluation.graph)}
    aligned = _Alignment(written)
    _pair_inputs(training, evaluation, aligned)
    rest = _computing(evaluation, aligned)
    other = next(rest, None)
    for node in training.graph.nodes:
        if _is_passive(node):
            continue
        value = value_of(node, aligned.twins, written)
        if value is not None:
            aligned.twins[node] = value
            continue
        names = None if other is None else aligned.changing(node, other)
        if other is not None and names is not None:
            aligned.pair(node, other, names)
            other = next(rest, None)
        elif _is_added_dropout(node, aligned):
            aligned.twins[node] = aligned.twins[node.all_input_nodes[0]]
            node.meta[MODE_KEY] = ("train",)
        else:
            aligned.leave(node, other)
    if other is not None:
        raise CaptureError(aligned.told(*_first_cause(aligned, other)))


def _is_passive(node: Node) -> bool:
    if node.op in ("placeholder", "get_attr") or node.target is ASSERT:
        return True
    return counter_of(node) is not None


def _computing(evaluation: GraphModule, aligned: _Alignment) -> Iterator[Node]:
    """Yield the nodes of evaluation that compute something; the others stand for these."""
    for node in evaluation.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            aligned.values[node] = node
        elif not _is_passive(node):
            value = value_of(node, aligned.values, aligned.written)
            aligned.values[node] = node if value is None else value
            if value is None:
                yield node


def _pair_inputs(training: GraphModule, evaluation: GraphModule, aligned: _Alignment) -> None:
    for op in ("placeholder", "get_attr"):
        found = {node.target: node for node in evaluation.graph.find_nodes(op=op)}
        for node in training.graph.find_nodes(op=op):
            other = found.get(node.target)
            if other is None:
                continue
            if op == "placeholder" or _holds_same(training, evaluation, str(node.target)):
                aligned.twins[node] = other


def _holds_same(training: GraphModule, evaluation: GraphModule, target: str) -> bool:
    """Whether both store the same: constants of a model's code are numbered in each graph."""
    ours, theirs = attribute(training, target), attribute(evaluation, target)
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor) or ours is theirs:
        return type(ours) is type(theirs)
    if (ours.shape, ours.dtype, ours.device) != (theirs.shape, theirs.dtype, theirs.device):
        return False
    return ours.data_ptr() == theirs.data_ptr() or torch.equal(ours, theirs)


def _is_added_dropout(node: Node, aligned: _Alignment) -> bool:
    """Whether ``node`` is a dropout that is off in evaluation, or left out there."""
    if node.target not in DROPOUTS or argument_value(node, "train") is not True:
        return False
    return node.all_input_nodes[0] in aligned.twins


def _follows_mode(ours: Any, theirs: Any) -> bool:
    """Whether two literals are a flag, or a probability, that is for training only."""
    return (ours is True and theirs is False) or (isinstance(ours, float) and theirs == 0.0)


def _same_form(node: Node, root: Node) -> bool:
    """Whether the one can stand in the place of the other."""
    ours, theirs = node.meta.get("val"), root.meta.get("val")
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor) or ours.dtype != theirs.dtype:
        return False
    return sizes_of(node) is not None and sizes_of(node) == sizes_of(root)


def _first_cause(aligned: _Alignment, other: Node) -> tuple[Node | None, Node | None]:
    """Return the first call that only training does and that is no noise, else ``other``."""
    causes = (alone.cause for alone in aligned.alone.values() if alone.root is not None)
    return next(causes, (None, other))


def _is_literal(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_literal, value))
    return not isinstance(value, Node)


def _where(node: Node) -> str:
    scope = module_scope(node)
    return f" in module '{scope}'" if scope else ""

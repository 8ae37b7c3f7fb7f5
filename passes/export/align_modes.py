"""Find the counterpart in evaluation of every call of a training graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.errors import CaptureError
from quantfx.passes.export.same_values import (
    Value,
    is_same,
    pairs_of_arguments,
    sizes_of,
    value_of,
)
from quantfx.passes.export.size_asserts import ASSERT_TENSOR
from quantfx.passes.export.training_noise import mark, reads
from quantfx.passes.graph.aliasing import overwritten, writes_to
from quantfx.passes.graph.batch_norm import counter_of
from quantfx.passes.graph.constant_chain import is_random
from quantfx.passes.graph.dropouts import DROPOUTS, IN_PLACE_DROPOUTS
from quantfx.passes.graph.graphs import attribute
from quantfx.passes.graph.scopes import module_scope
from quantfx.patterns.schema import argument_value

MODE_KEY = "quantfx_mode"
_DROPOUTS = (*DROPOUTS, *IN_PLACE_DROPOUTS)
FIX = (
    "only arguments of operators (as in nn.Dropout and nn.BatchNorm2d), layouts, and noise on a "
    "tensor (as in stochastic depth) may depend on the mode. Write the model that way, or call "
    "eval() on that submodule before the capture to train it as in evaluation"
)


@dataclass(frozen=True)
class _Alone:
    """A call that only training makes.

    Attributes:
        root: The only tensor it is computed from besides random numbers; None if from those only.
        is_noisy: Whether it depends on random numbers.
        cause: The first such call upstream, and the node of evaluation in its place.
        noisy: The last node of the noise that can be left out: the call itself, or the node it is
            a view of; None if the noise cannot be left out.
        value: The value in evaluation if the noise is left out.
    """

    root: Node | None
    is_noisy: bool
    cause: tuple[Node, Node | None]
    noisy: Node | None = None
    value: Value | None = None


@dataclass
class _Alignment:
    """What is known about two graphs, one of training and one of evaluation.

    Attributes:
        written: Tensors of either graph that something writes to later.
        twins: Node of training -> its counterpart in evaluation.
        values: Node of evaluation -> the value it stands for.
        alone: The calls that only training makes.
    """

    written: set[Node]
    twins: dict[Node, Value] = field(default_factory=dict[Node, Value])
    values: dict[Node, Value] = field(default_factory=dict[Node, Value])
    alone: dict[Node, _Alone] = field(default_factory=dict[Node, _Alone])

    def find_changing(self, node: Node, other: Node) -> tuple[str, ...] | None:
        """Return the arguments that follow the mode; None if ``other`` is a different call."""
        if node.target != other.target:
            return None
        names: list[str] = []
        for name, ours, theirs in pairs_of_arguments(node, other):
            if not is_same(ours, theirs, self.is_same):
                if not _follows_mode(ours, theirs):
                    return None
                names.append(name)
        return tuple(names)

    def is_same(self, ours: Node, theirs: Node) -> bool:
        """Whether evaluation computes the same for both."""
        alone = self.alone.get(ours)
        value = self.twins.get(ours) if alone is None else alone.value
        return value is not None and value == self.values.get(theirs)

    def pair(self, node: Node, other: Node, names: tuple[str, ...]) -> None:
        """Note that ``node`` is ``other`` in evaluation, which leaves out noise on inputs."""
        for source in node.all_input_nodes:
            self._leave_out(source)
        self.twins[node] = other
        if names:
            # A dropout that is off does not read its p.
            node.meta[MODE_KEY] = ("train",) if node.target in _DROPOUTS else names

    def leave(self, node: Node, other: Node | None) -> None:
        """Treat ``node`` as a call that only training makes.

        Raises:
            CaptureError: it is not noise on a single tensor.
        """
        view = self._view(node)
        if view is not None:
            self.alone[node] = view
            return
        sources = [each for each in reads(node) if not isinstance(self.twins.get(each), str)]
        found = [self.alone[each] for each in sources if each in self.alone]
        causes = [each.cause for each in found if each.root is not None] or [(node, other)]
        roots = {each: None for each in sources if each not in self.alone}
        roots |= {each.root: None for each in found if each.root is not None}
        outside = [each for each in writes_to(node) if each not in self.alone]
        if node.op != "call_function" or len(roots) > 1 or outside:
            raise self.refusal(*causes[0])
        root = self._nearest(node, sources, next(iter(roots), None))
        is_noisy = is_random(node) or any(each.is_noisy for each in found)
        alone = _Alone(root, is_noisy, causes[0])
        if root is not None and is_noisy and _has_same_form(node, root):
            alone = replace(alone, noisy=node, value=self.twins.get(root))
        self.alone[node] = alone

    def _view(self, node: Node) -> _Alone | None:
        """Return the entry for a view or copy of a tensor with noise; None for other nodes."""
        source = self.alone.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        if source is None or source.value is None:
            return None
        value = value_of(node, {node.all_input_nodes[0]: source.value}, self.written)
        return None if value is None else replace(source, value=value)

    def _nearest(self, node: Node, sources: list[Node], root: Node | None) -> Node | None:
        """Return the tensor that ``node`` adds noise to: ``root``, or a noisy view of it."""
        for source in sources:
            alone = self.alone.get(source)
            if root is None or alone is None or alone.value is None or _has_same_form(node, root):
                continue
            if _has_same_form(node, source):
                self._leave_out(source)
                return source
        return root

    def refusal(self, node: Node | None, other: Node | None) -> CaptureError:
        """Return an error: training calls ``node`` where evaluation calls ``other``."""
        if node is not None and other is not None and node.target == other.target:
            for name, ours, theirs in pairs_of_arguments(node, other):
                if _is_literal(ours) and not is_same(ours, theirs, self.is_same):
                    return _refusal(
                        node,
                        f"{node.name}.{name} ({node.target}){_locate(node)} is {ours} in training "
                        f"and {theirs} in evaluation",
                    )
        here, there = _does(node), _does(other)
        if here == there:
            here += f" ({node}, on other tensors)"
        message = f"the model {here} in training where it {there} in evaluation"
        return _refusal(node, message + _constant(node, self))

    def _leave_out(self, source: Node) -> None:
        """Mark the noise behind ``source``, directly or through a view, if there is any."""
        alone = self.alone.get(source)
        if alone is None or alone.noisy is None or alone.root is None:
            return
        node = alone.noisy
        reason = mark(node, alone.root, self.alone)
        if reason is not None:
            raise CaptureError(
                f"{node.name} ({node.target}){_locate(node)} puts noise on {alone.root.name} in "
                f"training only, but {reason}",
                rule="other-in-training",
                site=node.name,
                fix=f"draw random numbers for each tensor separately, from its own sizes. {FIX}",
            )
        for each, view in list(self.alone.items()):
            if view.noisy is node and view.value is not None:
                self.twins[each] = view.value
                del self.alone[each]


def align_modes(training: GraphModule, evaluation: GraphModule) -> None:
    """Note on the nodes of ``training`` what depends on the mode.

    Calls are compared in order, by operator and by the values of their arguments. Copies and views
    of a value, so that layouts may differ, and dropouts that are off are seen through. Arguments
    that follow the mode are listed in ``meta[MODE_KEY]``; random numbers that only training puts on
    a tensor are marked for ``training_noise``.

    Raises:
        CaptureError: the graphs compute different functions; names the first operator.
    """
    written = {*overwritten(training.graph), *overwritten(evaluation.graph)}
    aligned = _Alignment(written)
    _pair_inputs(training, evaluation, aligned)
    rest = _find_computing(evaluation, aligned)
    other = next(rest, None)
    for node in training.graph.nodes:
        if _is_passive(node):
            continue
        value = value_of(node, aligned.twins, written)
        if value is not None:
            aligned.twins[node] = value
            continue
        names = None if other is None else aligned.find_changing(node, other)
        if other is not None and names is not None:
            aligned.pair(node, other, names)
            other = next(rest, None)
        elif _is_added_dropout(node, aligned):
            aligned.twins[node] = aligned.twins[node.all_input_nodes[0]]
            node.meta[MODE_KEY] = ("train",)
        else:
            aligned.leave(node, other)
    if other is not None:
        # The first call that only training makes and that is not noise, if there is one.
        causes = (alone.cause for alone in aligned.alone.values() if alone.root is not None)
        raise aligned.refusal(*next(causes, (None, other)))


def _refusal(node: Node | None, message: str) -> CaptureError:
    site = None if node is None else node.name
    return CaptureError(message, rule="other-in-training", site=site, fix=FIX)


def _is_passive(node: Node) -> bool:
    if node.op in ("placeholder", "get_attr") or node.target is ASSERT_TENSOR:
        return True
    return counter_of(node) is not None


def _find_computing(evaluation: GraphModule, aligned: _Alignment) -> Iterator[Node]:
    """Yield the nodes of evaluation that compute something; other nodes stand for their values."""
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
    """Whether both store the same value: each graph numbers the constants of a model's code."""
    ours, theirs = attribute(training, target), attribute(evaluation, target)
    if isinstance(ours, GraphModule):  # aligned separately
        return isinstance(theirs, GraphModule)
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor) or ours is theirs:
        return ours is theirs
    if (ours.shape, ours.dtype, ours.device) != (theirs.shape, theirs.dtype, theirs.device):
        return False
    return ours.data_ptr() == theirs.data_ptr() or torch.equal(ours, theirs)


def _is_added_dropout(node: Node, aligned: _Alignment) -> bool:
    """Whether ``node`` is a dropout that is off in evaluation, or left out there."""
    if node.target not in _DROPOUTS or argument_value(node, "train") is not True:
        return False
    return node.all_input_nodes[0] in aligned.twins


def _follows_mode(ours: Any, theirs: Any) -> bool:
    """Whether two literals are a flag, or a probability, that is for training only."""
    return (ours is True and theirs is False) or (isinstance(ours, float) and theirs == 0.0)


def _has_same_form(node: Node, root: Node) -> bool:
    """Whether ``node`` can replace ``root``: same shape and dtype."""
    ours, theirs = node.meta.get("val"), root.meta.get("val")
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor) or ours.dtype != theirs.dtype:
        return False
    return sizes_of(node) is not None and sizes_of(node) == sizes_of(root)


def _is_literal(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_literal, value))
    return not isinstance(value, Node)


def _does(node: Node | None) -> str:
    if node is None or node.op == "output":
        return "returns"
    return f"calls {node.target}{_locate(node)}"


def _constant(node: Node | None, aligned: _Alignment) -> str:
    """Say where ``node`` reads a tensor that was computed while the model was traced."""
    sources = node.all_input_nodes if node is not None else []
    if not any(each.op == "get_attr" and each not in aligned.twins for each in sources):
        return ""
    return (
        ": it reads a constant that only training has; random numbers of numpy or Python are drawn "
        "only once, at capture (as in SpecAugment: set apply_spec_augment=False)."
    )


def _locate(node: Node) -> str:
    scope = module_scope(node)
    return f" in module '{scope}'" if scope else ""

"""One call of a float graph: the own error of every site, and its effect on the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.inputs.leaves import Inputs, input_leaves, leaves_in, map_leaves
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.patterns.errors import QuantfxError


@dataclass(frozen=True)
class SiteError:
    """The own error of one site in one call.

    Attributes:
        values: Its float results, from which the outputs were computed.
        errors: The error that its rounding adds to each.
    """

    values: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """One call of the float graph.

    Attributes:
        outputs: The leaves of its result.
        errors: Own error of each part, in order.
    """

    outputs: tuple[Any, ...]
    errors: tuple[SiteError, ...]

    def gradients(
        self, places: Sequence[int], weights: Sequence[Tensor], *, keep: bool
    ) -> list[list[Tensor | None]]:
        """Return, for each part, the gradients of ``sum <weights, outputs>`` by its results.

        Nothing gets a ``.grad``.

        Args:
            places: Indices of the outputs.
            weights: One weight tensor for each of these outputs.
            keep: Whether another call of this method follows.

        Raises:
            QuantfxError: an operator has no gradient; quotes torch.
        """
        values = [value for each in self.errors for value in each.values]
        try:
            found = torch.autograd.grad(
                [self.outputs[place] for place in places],
                values,
                list(weights),
                retain_graph=keep,
                allow_unused=True,
            )
        except (RuntimeError, NotImplementedError) as error:
            raise _no_gradient(error) from error
        rest = iter(found)
        return [[next(rest) for _ in each.values] for each in self.errors]


def run_with_errors(paired: PairedGraphs, inputs: Inputs, *, accumulated: bool = False) -> Call:
    """Run the float graph for one call, with the own error of each part.

    Args:
        paired: Both graphs.
        inputs: Positional and keyword arguments, with the rows that the graphs take.
        accumulated: Whether to continue with the rounded results, so that inputs and results of
            each part are the same as in the q/dq graph; gradients pass rounding unchanged.

    Raises:
        QuantfxError: an operator has no gradient; quotes torch.
    """
    stepper = _GradientStepper(paired, accumulated=accumulated)
    leaves = [leaf for _, leaf in input_leaves(paired.reference, *copy_inputs(*inputs))]
    stepper.start(map(_detached, leaves), paired.kept(paired.parts))
    try:
        with torch.enable_grad():
            outputs = stepper.value(paired.output)
    except (RuntimeError, NotImplementedError) as error:
        raise _no_gradient(error) from error
    return Call(tuple(leaves_in(outputs)), tuple(stepper.errors[each] for each in paired.parts))


class _GradientStepper(Stepper):
    """Runs a float graph so that gradients reach the results of its parts.

    Stored tensors are constants. ``detach`` does not stop gradients here, nor does rounding.

    Attributes:
        errors: Own errors by part.
    """

    def __init__(self, paired: PairedGraphs, *, accumulated: bool) -> None:
        super().__init__(paired.reference)
        self._paired, self._accumulated = paired, accumulated
        self._parts = {paired.end(part): part for part in paired.parts}
        self.errors: dict[Part, SiteError] = {}

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        if node.target == torch.ops.aten.detach.default:
            return values[node.all_input_nodes[0]]
        if node.target == torch.ops.higher_order.cond:
            # Otherwise torch 2.13 compiles both branches with Dynamo, which fails here.
            args: Any = map_arg(node.args, values.__getitem__)
            return _taken_branch(*args)
        value = super()._call(node, values)
        if node.op == "get_attr":
            return _detached(value)
        part = self._parts.get(node)
        if part is None:
            return value
        value = map_leaves(_tracked, value)
        own = self._paired.own_value(part, values)
        pairs = [
            (x, y)
            for x, y in zip(leaves_in(value), leaves_in(own), strict=True)
            if isinstance(x, Tensor) and x.is_floating_point()
        ]
        error = SiteError(
            tuple(x for x, _ in pairs), tuple(_difference(x.detach(), y) for x, y in pairs)
        )
        for each in self._paired.inputs(part):
            self.release(each)
        self.errors[part] = error
        if not self._accumulated:
            return value
        rounded = {id(x): x + e for x, e in zip(error.values, error.errors, strict=True)}
        return map_leaves(lambda leaf: rounded.get(id(leaf), leaf), value)


def _taken_branch(
    predicate: Any, true: GraphModule, false: GraphModule, operands: Sequence[Any]
) -> Any:
    branch = true if predicate else false
    stepper = Stepper(branch)
    output = next(iter(branch.graph.find_nodes(op="output")))
    stepper.start(operands, {output: 1})
    return stepper.value(output)


def _no_gradient(error: Exception) -> QuantfxError:
    return QuantfxError(
        f"the float graph cannot be run with gradients: {str(error).strip().splitlines()[0]}",
        rule="no-gradients",
        fix="use compare, which needs no gradients; its own errors say what each site loses alone",
    )


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _tracked(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    # An operator may return its input: its result gets a separate tensor.
    return leaf.view_as(leaf) if leaf.requires_grad else leaf.detach().requires_grad_()


def _difference(exact: Tensor, own: Tensor) -> Tensor:
    if exact.shape != own.shape:  # whatever the cause, none of the signal is right
        return -exact
    found = own - exact
    if torch.isfinite(found.sum()):
        return found
    return found.masked_fill_(own == exact, 0)  # a mask is infinite in both

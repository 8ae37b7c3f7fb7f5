"""Run a q/dq graph beside its float graph, and compare each match with exact values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.inputs.leaves import Inputs, input_leaves
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.report.compare.parts import Part, find_parts


@dataclass(frozen=True)
class PartValues:
    """The values of one match in one call.

    Attributes:
        exact: Its result in the float graph.
        accumulated: Its result in the q/dq graph, with the errors of all matches before it.
        own: Its result in the q/dq graph from exact inputs.
        inputs: Name of a quantize node -> its exact input tensor.
    """

    exact: Any
    accumulated: Any
    own: Any
    inputs: Mapping[str, Any]


class Lockstep:
    """Two graphs that run side by side, operator by operator.

    No value is kept after its last reader, so memory is that of both graphs and their live values.

    Args:
        reference: The float graph, with or without observers.
        quantized: The q/dq graph; operators of equal name and target are the same in both.
    """

    def __init__(self, reference: GraphModule, quantized: GraphModule) -> None:
        self._quantized = quantized
        self._float = Stepper(reference)
        self._int8 = Stepper(quantized)
        self.common = common_nodes(reference, quantized)
        self.parts: Sequence[Part] = tuple(
            sorted(find_parts(quantized, self.common), key=lambda part: part.output)
        )
        self._outputs = _output_of(reference), _output_of(quantized)
        exact = [self.common[each.name] for part in self.parts for each in part.exact]
        ends = [self.common[part.output.name] for part in self.parts]
        self._float_kept = Counter([*exact, *ends, self._outputs[0]])
        stored = [each for part in self.parts for each in part.stored]
        ends = [part.output for part in self.parts]
        self._int8_kept = Counter([*stored, *ends, self._outputs[1]])

    def run(self, inputs: Inputs, visit: Callable[[Part, PartValues], None]) -> tuple[Any, Any]:
        """Run both for one call; return their results, of the float graph first.

        Args:
            inputs: Positional and keyword arguments, with the rows that the graph takes.
            visit: Called with each match and its values, in graph order.
        """
        for stepper, kept in ((self._float, self._float_kept), (self._int8, self._int8_kept)):
            # Each graph gets its own copy: a model may write to its inputs.
            own = copy_inputs(*inputs)
            stepper.start([leaf for _, leaf in input_leaves(self._quantized, *own)], kept)
        with torch.no_grad():
            for part in self.parts:
                visit(part, self._values(part))
                for each in part.stored:
                    self._int8.release(each)
                self._int8.release(part.output)
                for each in (*part.exact, part.output):
                    self._float.release(self.common[each.name])
            exact, found = self._outputs
            return self._float.value(exact), self._int8.value(found)

    def _values(self, part: Part) -> PartValues:
        accumulated = self._int8.value(part.output)
        exact = self._float.value(self.common[part.output.name])
        given: dict[Node, Any] = {each: self._int8.value(each) for each in part.stored}
        given |= {each: self._float.value(self.common[each.name]) for each in part.exact}
        made = self._int8.evaluate(part.inner, given)
        inputs = {each.name: made[each.all_input_nodes[0]] for each in part.quantizes}
        return PartValues(exact, accumulated, made[part.output], inputs)


def common_nodes(reference: GraphModule, quantized: GraphModule) -> dict[str, Node]:
    """Return the nodes of ``reference`` that have a counterpart in ``quantized``.

    Counterparts have the same name and target. Stored tensors are excluded: a name may stand for
    the integer weight.
    """
    theirs = {node.name: node for node in quantized.graph.nodes}
    return {
        node.name: node
        for node in reference.graph.nodes
        if (other := theirs.get(node.name)) is not None
        and node.op in ("placeholder", "call_function")
        and (node.op, node.target) == (other.op, other.target)
    }


def _output_of(module: GraphModule) -> Node:
    node: Node = next(iter(module.graph.find_nodes(op="output")))
    return node

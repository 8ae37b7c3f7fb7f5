"""Translate a q/dq graph into the steps of a plan, for one set of shapes.

It works from results backwards: a quantize with the operators before it (``q(relu(conv(dq(x),
dq(w)) + dq(y)))``) becomes one step if a step can compute all of them. Nodes whose float value is
read more than once are computed once, in float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.backends.direct.rules.pointwise import post_ops_of
from quantfx.backends.direct.rules.readers import is_windowed, turned
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.steps import Lookup, Pointwise, PostOp, Program, Step, View
from quantfx.backends.direct.runtime.values import (
    Buffer,
    Value,
    byte_size,
    channels_last,
    in_order,
    is_dense,
    layout_of,
    same_order,
)
from quantfx.passes.graph.graphs import constant
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_PER_TENSOR,
    TensorQParams,
    tensor_qparams,
)
from quantfx.patterns.schema import overload, resolve_op

# Operators that view the memory of their first argument.
VIEWS = frozenset(
    resolve_op(f"aten.{name}")
    for name in (
        "view.default",
        "reshape.default",
        "flatten.using_ints",
        "permute.default",
        "transpose.int",
        "t.default",
        "squeeze.dim",
        "squeeze.dims",
        "unsqueeze.default",
        "slice.Tensor",
        "select.int",
        "expand.default",
        "unflatten.int",
    )
)
_MAY_COPY = frozenset(
    resolve_op(f"aten.{name}") for name in ("view.default", "reshape.default", "flatten.using_ints")
)
# Difference of the bytes in memory to integers of int8.
INT8_SHIFT = 128
# Post-ops after a result; leaves room for a sum and the post-ops before it.
_LONGEST = 4


@dataclass(frozen=True)
class Task:
    """The computation of one step: ``q(post(base))``.

    Attributes:
        base: The operator that decides the kind of step.
        post: Post-ops on its result.
        quantize: The quantize at the end; None for a float result.
        nodes: All nodes after ``base``, in order.
    """

    base: Node
    post: tuple[PostOp, ...]
    quantize: Node | None
    nodes: tuple[Node, ...]

    @property
    def final(self) -> Node:
        """The node whose value is the result."""
        return self.nodes[-1] if self.nodes else self.base


Rule = Callable[["Translation", Task], Value]


class Translation:
    """The translation of one graph.

    Args:
        module: A graph of placeholders, constants, operators and one output.
        shapes: Each node's value on device meta.
        rules: Rules of operators that are neither pointwise nor views.
        derived: Weights derived from others, by their origin; kept by the caller.
    """

    def __init__(
        self,
        module: GraphModule,
        shapes: Mapping[Node, Tensor],
        rules: Mapping[Any, Rule],
        derived: dict[tuple[Any, ...], Tensor],
    ) -> None:
        self.module = module
        self.shapes = shapes
        self._derived = derived
        self.program = Program()
        self._rules = rules
        self._values: dict[Node, Value] = {}
        self._inputs = module.graph.find_nodes(op="placeholder", sort=True)
        (output,) = module.graph.find_nodes(op="output")
        self._results: list[Node] = list(output.args[0])

    @property
    def computed(self) -> Mapping[Node, Value]:
        """The values computed so far."""
        return self._values

    def run(self) -> Program:
        """Return the steps for every output.

        Raises:
            Untranslatable: no step computes some node.
        """
        for node in self.module.graph.nodes:
            if node.op == "call_function" and node.target is QUANTIZE_PER_TENSOR:
                self.value(node)
        for index, node in enumerate(self._results):
            value = self.value(node)
            self.program.outputs.append(self._output_layout(node))
            if value.buffer.place != "output" or value.buffer.index != index:
                self._deliver(value, node, index)
        self.program.values = {
            node: value
            for node, value in self._values.items()
            if node.op == "call_function" and node.target is not DEQUANTIZE_PER_TENSOR
        }
        return self.program

    def value(self, node: Node) -> Value:
        """Return the value of ``node``, computed if needed."""
        if node not in self._values:
            self._values[node] = self._value(node)
        return self._values[node]

    def constant(self, node: object) -> Tensor | None:
        """Return the constant behind ``node``; None if it is computed or not a node."""
        value = constant(self.module, node)
        return None if value is None else value.detach()

    def derive(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """Return the constant known as ``key``, which ``make`` makes once for all shapes."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def add(self, step: Step, task: Task, *covered: Node) -> Value:
        """Append the step of a task; ``covered`` are further nodes that it computes."""
        step.nodes = tuple(sorted({*covered, *task.nodes}))
        step.output = task.final
        self.program.steps.append(step)
        return step.result

    def result(self, task: Task, layout: Tensor, *, any_order: bool = True) -> Value:
        """Return the value for the result of a task.

        Args:
            task: The task.
            layout: The layout that the step would choose, in the shape of the result.
            any_order: Whether the step can write in any order, as an output may need.
        """
        quantize, final = task.quantize, task.final
        if quantize is not None:
            q = tensor_qparams(quantize)
            shift = shift_of(q)
            layout = torch.empty_strided(
                layout.shape, layout.stride(), dtype=torch.uint8, device="meta"
            )
            place = self._place(final, layout, any_order) if not shift else None
            if place is None:
                place = Buffer(byte_size(layout)), layout
            return Value(*place, q.scale, q.zero_point + shift, shift)
        layout = torch.empty_strided(
            layout.shape, layout.stride(), dtype=self.shapes[final].dtype, device="meta"
        )
        place = self._place(final, layout, any_order) or (Buffer(byte_size(layout)), layout)
        return Value(*place)

    def limits(self, task: Task) -> dict[str, Any]:
        """Return ``low``, ``high`` and ``post`` of a task's step."""
        if task.quantize is None:
            return {"post": task.post}
        q = tensor_qparams(task.quantize)
        shift = shift_of(q)
        return {"post": task.post, "low": q.quant_min + shift, "high": q.quant_max + shift}

    def laid_out(self, value: Value, layout: Tensor) -> Value:
        """Return ``value`` in the order of ``layout``, copied if needed."""
        if same_order(value.layout, layout) and value.layout.shape == layout.shape:
            return value
        copy = Value(Buffer(byte_size(layout)), layout, value.scale, value.zero_point, value.shift)
        self.program.steps.append(Lookup(source=value, result=copy))
        return copy

    def wanted_layout(self, task: Task, layout: Tensor) -> Tensor:
        """Return the order in which the readers of a pointwise result want it."""
        shape, dtype = layout.shape, layout.dtype
        if len(shape) > 2 and task.quantize is not None and is_windowed(task.quantize):
            return channels_last(shape, dtype)
        order = turned(task.final, shape, dtype)
        if order is not None:
            return order
        return layout if is_dense(layout) else in_order(shape, dtype)

    def compute(self, final: Node, expression: Node, quantize: Node | None) -> Value:
        """Return ``q(expression)``, or ``expression`` in float, in as few steps as possible."""
        chain: list[Node] = []
        post: tuple[PostOp, ...] = ()
        base = expression
        while self._is_alone(base, expression, quantize) and base not in self._values:
            ops = post_ops_of(base)
            if ops is None or len(ops) + len(post) > _LONGEST:
                break
            chain.insert(0, base)
            post = ops + post
            base = base.all_input_nodes[0]
        nodes = (*chain, *(() if quantize is None else (quantize,)))
        task = Task(base, post, quantize, nodes)
        fused = base not in self._values and self._is_alone(base, expression, quantize)
        rule = self._rules.get(base.target) if fused else None
        if rule is not None:
            try:
                return rule(self, task)
            except RuntimeError as error:  # a view that a layout does not allow
                refused = f"torch refuses it for these layouts: {error}"
                raise Untranslatable(base, refused) from error
        if not task.nodes:
            raise Untranslatable(base, f"no step computes {base.target}")
        source = self.value(task.base)
        covered = views_of_integers(task.base)
        if source.is_integer and task.quantize is not None:
            return self._lookup(task, source, covered)
        layout = self.wanted_layout(task, source.layout)
        result = self.result(task, layout)
        step = Pointwise(source=source, result=result, **self.limits(task))
        return self.add(step, task, *covered)

    def _is_alone(self, node: Node, expression: Node, quantize: Node | None) -> bool:
        """Whether only the task needs the float value of ``node``."""
        return (node is expression and quantize is None) or len(node.users) == 1

    def _value(self, node: Node) -> Value:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "get_attr":
            return self._stored(node)
        if node.target is QUANTIZE_PER_TENSOR:
            return self.compute(node, argument_node(node, "input"), node)
        if node.target is DEQUANTIZE_PER_TENSOR:
            return self._dequantized(node)
        if node.target in VIEWS:
            return self._view(node, self.value(node.all_input_nodes[0]))
        return self.compute(node, node, None)

    def _stored(self, node: Node) -> Value:
        constant, shift = self.constant(node), 0
        if constant is None:
            raise Untranslatable(node, "it is not stored in the graph")
        if constant.dtype == torch.bool:
            constant = constant.view(torch.uint8)
        elif constant.dtype == torch.int8:
            shift, stored = INT8_SHIFT, constant
            key = ("shifted", stored.data_ptr(), stored.shape, stored.stride())
            constant = self.derive(key, lambda: stored.view(torch.uint8) ^ shift)
        elif constant.dtype not in (torch.float32, torch.uint8):
            raise Untranslatable(node, f"no step reads constants of {constant.dtype}")
        buffer = Buffer(0, "constant", constant=constant)
        return Value(buffer, layout_of(constant), shift=shift)

    def _dequantized(self, node: Node) -> Value:
        integers, q = self.value(argument_node(node, "input")), tensor_qparams(node)
        return replace(integers, scale=q.scale, zero_point=q.zero_point + integers.shift)

    def _input(self, node: Node) -> Value:
        layout = self.shapes[node]
        if layout.dtype == torch.bool:
            layout = layout.view(torch.uint8)  # a mask, of bytes
        buffer = Buffer(byte_size(layout), "input", self._inputs.index(node))
        value = Value(buffer, layout)
        if layout.dtype != torch.int8:
            return value
        shifted = torch.empty_like(layout, dtype=torch.uint8)
        made = Value(Buffer(byte_size(shifted)), shifted, shift=INT8_SHIFT)
        self.program.steps.append(Lookup(source=value, result=made, table=flip()))
        return made

    def _view(self, node: Node, value: Value) -> Value:
        """Return ``value`` as ``node`` views it, copied if the memory does not allow the view."""
        seen = self._looked_at(node, value.layout)
        if seen is None:
            value = self.laid_out(value, in_order(value.layout.shape, value.layout.dtype))
            seen = self._looked_at(node, value.layout)
        if seen is None:
            raise Untranslatable(node, "its result is no view of a contiguous tensor")
        return value.seen_as(seen)

    def _looked_at(self, node: Node, layout: Tensor) -> Tensor | None:
        """Return ``layout`` as ``node`` views it; None if that takes a copy."""
        if node.target not in _MAY_COPY:
            seen: Tensor = overload(node)(layout, *node.args[1:], **node.kwargs)
            return seen
        try:
            return layout.view(self.shapes[node].shape)
        except RuntimeError:
            return None

    def _lookup(self, task: Task, source: Value, covered: tuple[Node, ...]) -> Value:
        table = self.table(task, source)
        wanted = self.wanted_layout(task, source.layout)
        if table is None and same_order(wanted, source.layout) and task.final not in self._results:
            assert task.quantize is not None
            q = tensor_qparams(task.quantize)
            shift = shift_of(q)
            zero_point = q.zero_point + shift
            same = replace(source, scale=q.scale, zero_point=zero_point, shift=shift)
            view = View(source=source, result=same)
            view.nodes, view.output = (*covered, *task.nodes), task.final
            self.program.views.append(view)
            return same
        result = self.result(task, wanted)
        return self.add(Lookup(source=source, result=result, table=table), task, *covered)

    def table(self, task: Task, source: Value) -> bytes | None:
        """Return the table of a task for each byte of ``source``; None if bytes stay the same.

        The operators themselves compute it, on all 256 integers.
        """
        assert task.quantize is not None
        bytes_ = torch.arange(256)
        x = (bytes_.to(torch.float32) - source.zero_point) * source.scale
        for node in task.nodes[:-1]:
            x = overload(node)(x, *node.args[1:], **node.kwargs)
        integers = overload(task.quantize)(x, *task.quantize.args[1:])
        shifted = integers.to(torch.int64) + shift_of(tensor_qparams(task.quantize))
        return None if torch.equal(shifted, bytes_) else bytes(shifted.tolist())

    def _place(self, final: Node, layout: Tensor, any_order: bool) -> tuple[Buffer, Tensor] | None:
        """Return the output memory of ``final`` if it is an output that the step can write."""
        if final not in self._results:
            return None
        wanted = self._output_layout(final)
        if wanted.shape != layout.shape or not (any_order or same_order(wanted, layout)):
            return None
        index = self._results.index(final)
        return Buffer(byte_size(wanted), "output", index), wanted

    def _output_layout(self, node: Node) -> Tensor:
        """Return the layout of an output: contiguous, whatever the inputs' layouts."""
        return in_order(self.shapes[node].shape, self.shapes[node].dtype)

    def _deliver(self, value: Value, node: Node, index: int) -> None:
        """Copy a value to its output if it lies elsewhere."""
        wanted = self._output_layout(node)
        result = Value(Buffer(byte_size(wanted), "output", index), wanted)
        if value.is_integer and wanted.dtype.is_floating_point:
            step: Step = Pointwise(source=value, result=result)
        else:
            step = Lookup(source=value, result=result, table=flip() if value.shift else None)
        self.program.steps.append(step)


def views_of_integers(node: Node) -> tuple[Node, ...]:
    """Return a dequantize and the views after it up to ``node``; empty if there is none."""
    found: list[Node] = []
    while node.target in VIEWS:
        found.insert(0, node)
        node = node.all_input_nodes[0]
    return (node, *found) if node.target is DEQUANTIZE_PER_TENSOR else ()


def shift_of(q: TensorQParams) -> int:
    """Return the shift of integers in memory, see ``Value.shift``."""
    return INT8_SHIFT if q.dtype == torch.int8 else 0


def flip() -> bytes:
    """Return the table from int8 to bytes larger by 128, which is its own inverse."""
    return bytes(each ^ INT8_SHIFT for each in range(256))

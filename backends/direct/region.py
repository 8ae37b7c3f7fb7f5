"""A part of a graph that runs as one call of a prepared plan."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import reduce
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.checks import targets
from quantfx.backends.direct.arena import separate
from quantfx.backends.direct.library import runtime
from quantfx.backends.direct.operator import region_operator
from quantfx.backends.direct.operators import rules
from quantfx.backends.direct.plan import Plan, Store
from quantfx.backends.direct.program_text import write_program
from quantfx.backends.direct.shapes import shapes_of
from quantfx.backends.direct.steps import Accumulate, Program
from quantfx.backends.direct.translate import Translation
from quantfx.backends.direct.tuned import apply_choice, choices_for, signature
from quantfx.backends.direct.values import layout_of
from quantfx.passes.graph.clone import HoldsGraph, recompile
from quantfx.passes.graph.graphs import constants
from quantfx.patterns.errors import QuantfxError

# Plans that a region keeps: one for each set of shapes, the one used longest ago goes first.
PLANS = 8

Key = tuple[Any, ...]
# Other tensors are a compiler's, which traces.
_PLAIN = (Tensor, nn.Parameter)


def translate(graph: GraphModule, layouts: Sequence[Tensor]) -> Program:
    """Return the steps that compute ``graph`` for inputs of the given layouts.

    Args:
        graph: A q/dq graph of tensors.
        layouts: On device meta, one for each placeholder.

    Raises:
        Untranslatable: a node that no step computes.
    """
    exact = not targets.host().saturates
    shapes = shapes_of(graph, layouts)
    return Translation(graph, shapes, rules(), exact_products=exact).run()


class Region(HoldsGraph):
    """Runs a q/dq graph as prepared plans, one for each set of input shapes.

    Weights are packed at the first call and shared by the plans; a copy, and a region that was
    pickled, packs anew, and so does one of whose weights one was written to.

    Attributes:
        graph: The q/dq graph that it stands for.
        program: The same as text.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self.program = write_program(graph)
        self._names = [str(node.target) for node, _ in constants(graph)]
        region_operator()
        self._plans = _Plans(graph)

    @property
    def constants(self) -> list[Tensor]:
        """The constants of the graph, in its order."""
        module: Any = self.graph
        return [reduce(getattr, name.split("."), module) for name in self._names]

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return the outputs of the graph.

        Raises:
            QuantfxError: the runtime is not there, or oneDNN refuses a step.
        """
        if torch.compiler.is_compiling() or any(type(x) not in _PLAIN for x in inputs):
            operator = torch.ops.quantfx.direct_region.default
            found: list[Tensor] = operator(list(inputs), self.constants, self.program)
            return found
        if any(not x.numel() for x in inputs):
            return list(
                self.graph(*inputs)
            )  # nothing to compute, and oneDNN knows no empty tensors
        return self.plan(inputs).run(inputs)

    def plan(self, inputs: Sequence[Tensor]) -> Plan:
        """Return the plan for inputs like these, made if there is none."""
        return self._plans.get(inputs)

    def values_inside(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what each step yields, by the name of the node whose value it is.

        Outputs are those of the plan that runs; the others come from a plan of their own in which
        no buffer is used twice. Integers are the graph's.
        """
        program = translate(self.graph, [layout_of(x) for x in inputs])
        separate(program)
        outputs = Plan(new_store(), program, torch.get_num_threads()).run(inputs)
        made: dict[str, Tensor] = {}
        for node, value in program.values.items():
            memory = {"output": outputs, "input": inputs}.get(value.buffer.place)
            if memory is not None:
                seen = _seen(memory[value.buffer.index], value.layout)
                made[node.name] = (seen ^ 128).view(torch.int8) if value.shift else seen
        (output,) = self.graph.graph.find_nodes(op="output")
        results = zip(output.args[0], self(*inputs), strict=True)
        return made | {node.name: result for node, result in results}

    def forget_plans(self) -> None:
        """Let the next call make its plan anew."""
        self._plans = _Plans(self.graph)

    def copied(self, copy_graph: Callable[[GraphModule], GraphModule]) -> Region:
        """Return a region of a copy of the graph."""
        graph = copy_graph(self.graph)
        recompile(graph)
        return Region(graph)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_plans"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch has none
        self._plans = _Plans(self.graph)


class _Plans:
    """The plans of a region, which go with what they were made of.

    Args:
        graph: Of the region.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        # Inference tensors keep no count of writes; they are rarely written to.
        self._weights = [x for _, x in constants(graph) if not x.is_inference()]
        self._made_from: tuple[int, ...] = ()
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._store: Store | None = None
        self._lock = Lock()

    def get(self, inputs: Sequence[Tensor]) -> Plan:
        """Return the plan for inputs like these, made if there is none."""
        threads = torch.get_num_threads()
        key = (threads, *[(x.shape, x.stride(), x.dtype) for x in inputs])
        made_from = self._version()
        plan = self._plans.get(key)
        if plan is not None and self._made_from == made_from:
            with contextlib.suppress(KeyError):  # another thread may have dropped it
                self._plans.move_to_end(key)
            return plan
        with self._lock:
            if self._made_from != made_from:
                self._plans.clear()
                self._store, self._made_from = None, made_from
            if key not in self._plans:  # made by another thread, in the meantime
                self._plans[key] = self._new_plan(inputs, threads)
            self._plans.move_to_end(key)
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
            return self._plans[key]

    def _new_plan(self, inputs: Sequence[Tensor], threads: int) -> Plan:
        if self._store is None:
            self._store = new_store()
        program = translate(self._graph, [layout_of(x) for x in inputs])
        known = choices_for(threads)
        for step in program.steps:
            if isinstance(step, Accumulate) and (choice := known.get(signature(step))):
                apply_choice(step, choice)
        return Plan(self._store, program, threads)

    def _version(self) -> tuple[int, ...]:
        """Return the process, whose threads a fork does not have, and how often weights changed."""
        counts = [x._version for x in self._weights]  # pyright: ignore[reportPrivateUsage]
        return (os.getpid(), *counts)


def _seen(memory: Tensor, layout: Tensor) -> Tensor:
    """Return the tensor of a layout in memory that may be given as bytes."""
    typed = memory if memory.dtype == layout.dtype else memory.view(layout.dtype)
    return typed.as_strided(layout.shape, layout.stride(), layout.storage_offset())


def new_store() -> Store:
    """Return a store for weights.

    Raises:
        QuantfxError: the runtime is not there.
    """
    found = runtime()
    if found.library is None:
        raise QuantfxError(
            f"the direct runtime is not available: {found.reason}",
            rule="no-direct-runtime",
            fix="lower with kernels='onednn'",
        )
    return Store(found.library)

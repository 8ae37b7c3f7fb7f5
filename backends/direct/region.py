"""A part of a graph that runs as one call of a prepared plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.module import register_module_forward_pre_hook

from quantfx.backends.direct.operator import region_operator
from quantfx.backends.direct.plans import Plans, new_store, translate
from quantfx.backends.direct.program_text import read_program, write_program
from quantfx.backends.direct.runtime.arena import separate
from quantfx.backends.direct.runtime.plan import Plan
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.passes.graph.clone import HoldsGraph, recompile
from quantfx.passes.graph.graphs import attribute, constants
from quantfx.patterns.errors import QuantfxError

_DTYPES = (torch.float32, torch.uint8, torch.int8, torch.bool, torch.bfloat16)
# Other tensors belong to a tracing compiler.
_PLAIN = (Tensor, nn.Parameter)


class Region(HoldsGraph):
    """Runs a q/dq graph as prepared plans, one for each set of input shapes.

    The first call packs weights, which the plans share. A copied or unpickled region packs anew,
    and so does one whose weights were written to or loaded. The graph itself runs, in float, if
    there is nothing to compute, if an input is not a plain tensor in memory, or, with a warning,
    for shapes that no plan computes.

    Attributes:
        graph: The q/dq graph that it stands for.
        program: The graph as text.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self.program = write_program(graph)
        self._names = [str(node.target) for node, _ in constants(graph)]
        region_operator()
        self._plans = Plans(graph)
        forget: Any = self.register_load_state_dict_post_hook
        forget(lambda module, keys: self.forget_plans())

    @property
    def constants(self) -> list[Tensor]:
        """The constants of the graph, in its order."""
        found: list[Any] = [attribute(self.graph, name) for name in self._names]
        return found

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return the outputs of the graph.

        Raises:
            QuantfxError: the runtime is not available.
        """
        if torch.compiler.is_compiling() or any(type(x) not in _PLAIN for x in inputs):
            operator = torch.ops.quantfx.direct_region.default
            found: list[Tensor] = operator(list(inputs), self.constants, self.program)
            return found
        plan = self.plan_for(inputs)
        return list(self.graph(*inputs)) if plan is None else plan.run(inputs)

    def plan_for(self, inputs: Sequence[Tensor]) -> Plan | None:
        """Return the plan that a call with ``inputs`` runs; None if the graph itself runs.

        Raises:
            QuantfxError: the runtime is not available.
        """
        return self._plans.get(inputs) if all(map(_is_in_memory, inputs)) else None

    def plan(self, inputs: Sequence[Tensor]) -> Plan:
        """Return the plan for inputs like these, made if needed.

        Raises:
            QuantfxError: no plan computes these shapes, or the runtime is not available.
        """
        plan = self._plans.get(inputs)
        if plan is None:
            raise QuantfxError("no plan computes these shapes", rule="no-plan")
        return plan

    def values_inside(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the value of each step, by the name of its node.

        Outputs come from the plan that runs; other values from a separate plan that reuses no
        buffer. Integers are as in the graph.
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
        """Make the next call prepare its plan anew."""
        self._plans = Plans(self.graph)

    def copied(self, copy_graph: Callable[[GraphModule], GraphModule]) -> Region:
        """Return a region of a copy of the graph."""
        graph = copy_graph(self.graph)
        recompile(graph)
        return Region(graph)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a graph module traces it again, which would fold constants.
        return _restore, (self.program, [each.detach() for each in self.constants])


def region_calls(call: Callable[[], object]) -> list[tuple[Region, tuple[Tensor, ...]]]:
    """Return the regions that ``call`` runs, in order, with their inputs."""
    found: list[tuple[Region, tuple[Tensor, ...]]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Region):
            found.append((module, inputs))

    hook = register_module_forward_pre_hook(note)  # compiled code hides its regions
    try:
        with torch.no_grad():
            call()
    finally:
        hook.remove()
    return found


def _restore(program: str, given: list[Tensor]) -> Region:
    return Region(read_program(program, given))


def _is_in_memory(x: Tensor) -> bool:
    """Whether the values of ``x`` can be read directly from memory."""
    try:
        plain = x.layout is torch.strided and x.device.type == "cpu" and x.dtype in _DTYPES
        return plain and not x.is_neg() and x.numel() > 0 and x.data_ptr() != 0
    except RuntimeError:  # a tensor of a torch.func transform, which has no memory
        return False


def _seen(memory: Tensor, layout: Tensor) -> Tensor:
    """Return the tensor of a layout in memory that may come as bytes."""
    typed = memory if memory.dtype == layout.dtype else memory.view(layout.dtype)
    start = typed.storage_offset() + layout.storage_offset()  # inputs may begin anywhere
    return typed.as_strided(layout.shape, layout.stride(), start)

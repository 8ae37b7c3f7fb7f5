"""Pass Inductor the free sizes of a graph's inputs beside the tensors, as Dynamo does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule


@dataclass(frozen=True)
class FreeSize:
    """A free number in the shape or strides of an input.

    Attributes:
        value: The traced value.
        position: Position of the input.
        dimension: Dimension of the input.
        is_stride: Whether it is a stride, not a size.
    """

    value: torch.SymInt
    position: int
    dimension: int
    is_stride: bool

    def of(self, inputs: Sequence[Any]) -> int:
        """Return its value in a call."""
        tensor: Tensor = inputs[self.position]
        return tensor.stride(self.dimension) if self.is_stride else tensor.size(self.dimension)


def free_sizes(inputs: Sequence[Any]) -> tuple[FreeSize, ...]:
    """Return the free sizes and strides of tensors, each once, except numbers that are inputs.

    Args:
        inputs: Traced inputs: fake tensors, and numbers with symbols.
    """
    known = {str(value) for value in inputs if isinstance(value, torch.SymInt)}
    found: list[FreeSize] = []
    for position, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            continue
        for is_stride, numbers in ((False, value.shape), (True, value.stride())):
            for dimension, number in enumerate(numbers):
                symbol = str(number)
                # For computed numbers, such as a stride of 3*s0, the parts are passed.
                if not isinstance(number, torch.SymInt) or not symbol.isidentifier():
                    continue
                if symbol not in known:
                    known.add(symbol)
                    found.append(FreeSize(number, position, dimension, is_stride))
    return tuple(found)


def compile_with_sizes(
    module: GraphModule,
    inputs: Sequence[Any],
    compiler: Callable[[GraphModule, list[Any]], Callable[..., Any]],
) -> Callable[..., Any]:
    """Compile a graph that takes the free sizes of its inputs as further inputs.

    While asserts of sizes are off, Inductor of torch 2.14 defines only sizes that it gets this way;
    otherwise its code raises a NameError.

    Args:
        module: Gets placeholders in front; has the calling convention of a plain graph.
        inputs: Positional inputs, one for each placeholder; may be real tensors, as from Dynamo.
        compiler: Returns the code for a graph and its inputs.

    Returns:
        A function that takes inputs such as ``inputs``.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    sizes = free_sizes([node.meta.get("val") for node in placeholders])
    if not sizes:
        return compiler(module, list(inputs))
    first = next(iter(module.graph.nodes))
    with module.graph.inserting_before(first):
        for index, size in enumerate(sizes):
            module.graph.placeholder(f"size_{index}").meta["val"] = size.value
    module.recompile()
    run = compiler(module, [*(size.value for size in sizes), *inputs])

    def with_sizes(*args: Any) -> Any:
        return run(*(size.of(args) for size in sizes), *args)

    return with_sizes

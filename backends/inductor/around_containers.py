"""Keep containers of libraries, such as Hugging Face's caches, away from Dynamo.

torch 2.13: Dynamo fails on code that builds such a container (InternalTorchDynamoError). So
compiled code takes and returns plain tensors, and the containers are made around it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule

from quantfx.passes.graph.clone import clone_as, recompile
from quantfx.passes.inputs.calling_convention import (
    holds_library_container,
    take_inputs_apart,
    take_outputs_apart,
)
from quantfx.passes.inputs.leaves import leaves_in


def around_containers(
    module: GraphModule, compiled: Callable[[GraphModule], Callable[..., Any]]
) -> Callable[..., Any]:
    """Return ``compiled(module)``; compile a graph of leaves if it takes or makes containers.

    Args:
        module: A graph; not changed.
        compiled: Compiles a graph module.
    """
    if not holds_library_container(module.graph):
        return compiled(module)
    signature = inspect.signature(module.forward)
    flat = clone_as(module, GraphModule)  # checked outside
    nested = take_outputs_apart(flat.graph)
    take_inputs_apart(flat.graph)
    recompile(flat)
    run = compiled(flat)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        return nested(run(*leaves_in(list(bound.arguments.values()))))

    return call

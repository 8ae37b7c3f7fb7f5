"""Keep containers of libraries, such as caches of Hugging Face's, away from Dynamo.

torch 2.13: Dynamo fails on code that puts such a container together (InternalTorchDynamoError). So
what is compiled takes and returns the tensors themselves, and the containers are made around it.
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
    """Return ``compiled(module)``, or of a graph of its leaves where it takes or makes containers.

    Args:
        module: A graph; not changed.
        compiled: Returns what calls a graph module.
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

"""Copy a graph module without generating code, and give it code once at the end.

torch 2.13: ``GraphModule(root, graph)`` and ``copy.deepcopy`` both generate Python code, which
costs more than everything a pipeline does. Copying nodes into an empty GraphModule does not.
``Graph._codegen`` (the calling convention: pytrees in and out) has no public reader.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.graph.checked_module import CheckedModule
from quantfx.passes.graph.graphs import all_graphs, attribute, is_stored

Kind = TypeVar("Kind", bound=GraphModule)
Copies = Literal["nothing", "buffers", "all"]


class HoldsGraph(nn.Module, ABC):
    """A module in a graph that holds its own graph and computes it in another way.

    A copy owns this graph's tensors just as it owns the tensors of the graph around it.

    Attributes:
        graph: The graph that the module computes.
    """

    graph: GraphModule

    @abstractmethod
    def copied(self, copy_graph: Callable[[GraphModule], GraphModule]) -> nn.Module:
        """Return a copy of the module whose graph ``copy_graph`` copied, not yet compiled."""

    @abstractmethod
    def values_inside(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the values that the module computes for ``inputs``, by node name in its graph."""


def clone(
    module: GraphModule, copies: Copies = "nothing", *, gradients: bool = True
) -> CheckedModule:
    """Return a copy of ``module`` with a graph of its own, not yet compiled.

    Submodules are shared. A parameter under two names stays one parameter. Call ``recompile``
    before running the copy.

    Args:
        module: Not changed.
        copies: Which tensors are copied: a forward call may change buffers.
        gradients: Whether parameters require gradients as before; without copies, they do.
    """

    def own(tensor: Tensor) -> Tensor:
        is_parameter = isinstance(tensor, nn.Parameter)
        value = tensor.detach()
        if copies == "all" or not is_parameter:
            value = torch.clone(value)
        return nn.Parameter(value, tensor.requires_grad and gradients) if is_parameter else value

    return _clone(module, _share if copies == "nothing" else own, CheckedModule, {})


def clone_as(module: GraphModule, kind: type[Kind]) -> Kind:
    """Return a copy of ``module`` of another class, which shares its tensors; not yet compiled."""
    return _clone(module, _share, kind, {})


def _clone(
    module: GraphModule,
    tensor: Callable[[Tensor], Tensor],
    kind: type[Kind],
    copies: dict[int, Tensor],
) -> Kind:
    copy = kind(nn.Module(), Graph())
    copy.training = module.training
    copied: dict[Node, Node] = {}
    value = copy.graph.graph_copy(module.graph, copied)
    for original in module.graph.find_nodes(op="output"):
        copy.graph.output(value).meta = dict(original.meta)
    copy.graph.set_codegen(module.graph._codegen)  # pyright: ignore[reportPrivateUsage]
    copy.meta = dict(module.meta)
    for node in copy.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            _copy_attribute(module, copy, str(node.target), tensor, copies)
    return copy


def recompile(module: GraphModule) -> None:
    """Generate the code of ``module`` and of every graph nested in it."""
    for _, graph_module in all_graphs(module):
        graph_module.recompile()


def _copy_attribute(
    source: GraphModule,
    copy: GraphModule,
    target: str,
    tensor: Callable[[Tensor], Tensor],
    copies: dict[int, Tensor],
) -> None:
    if is_stored(copy, target):
        return
    value = attribute(source, target)
    if isinstance(value, GraphModule):
        copy.add_submodule(target, _clone(value, tensor, GraphModule, copies))
    elif isinstance(value, HoldsGraph):
        copied = value.copied(lambda graph: _clone(graph, tensor, GraphModule, copies))
        copy.add_submodule(target, copied)
    elif isinstance(value, nn.Module):
        copy.add_submodule(target, value)
    elif isinstance(value, Tensor):
        if id(value) not in copies:
            copies[id(value)] = tensor(value)
        set_tensor(copy, target, copies[id(value)])
    else:
        setattr(_owner(copy, target), target.rpartition(".")[2], value)


def _share(tensor: Tensor) -> Tensor:
    # A separate parameter, even with the same storage: ``module.double()`` changes parameters.
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(tensor, tensor.requires_grad) if is_parameter else tensor


def set_tensor(module: GraphModule, target: str, value: Tensor) -> None:
    """Store ``value`` under the dotted ``target``, in place of what was there."""
    name = target.rpartition(".")[2]
    owner = _owner(module, target)
    if hasattr(owner, name):
        delattr(owner, name)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(name, value)
    else:
        owner.register_buffer(name, value)


def _owner(module: GraphModule, target: str) -> nn.Module:
    owner: nn.Module = module
    for name in target.split(".")[:-1]:
        inner = getattr(owner, name, None)
        if not isinstance(inner, nn.Module):
            inner = nn.Module().train(owner.training)
            owner.add_module(name, inner)
        owner = inner
    return owner

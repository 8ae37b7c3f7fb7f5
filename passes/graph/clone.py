"""Copy a graph module without generating code, and give it code once at the end.

torch 2.13: ``GraphModule(root, graph)`` and ``copy.deepcopy`` both generate Python code, which
costs more than everything a pipeline does. Copying nodes into an empty GraphModule does not.
``Graph._codegen`` (the calling convention: pytrees in and out) has no public reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.graph.checked_module import CheckedModule
from quantfx.passes.graph.graphs import all_graphs, attribute, is_stored

Kind = TypeVar("Kind", bound=GraphModule)


def keep(tensor: Tensor) -> Tensor:
    """Share the tensor between original and copy."""
    return tensor


def clone(module: GraphModule, tensor: Callable[[Tensor], Tensor] = keep) -> CheckedModule:
    """Return a copy of ``module`` with a graph of its own, not yet compiled.

    Tensors are passed through ``tensor`` (shared by default), other submodules are shared. What was
    one parameter under two names stays one. Call ``recompile`` before running the copy.

    Args:
        module: Not changed.
        tensor: Maps each parameter and buffer to what the copy holds.
    """
    return _clone(module, tensor, CheckedModule, {})


def clone_as(module: GraphModule, kind: type[Kind]) -> Kind:
    """Return a copy of ``module`` of another class, which shares its tensors; not yet compiled."""
    return _clone(module, keep, kind, {})


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
    elif isinstance(value, nn.Module):
        copy.add_submodule(target, value)
    elif isinstance(value, Tensor):
        if id(value) not in copies:
            copies[id(value)] = _copied(value, tensor)
        set_tensor(copy, target, copies[id(value)])
    else:
        setattr(_owner(copy, target), target.rpartition(".")[2], value)


def _copied(value: Tensor, tensor: Callable[[Tensor], Tensor]) -> Tensor:
    mapped = tensor(value)
    if not isinstance(value, nn.Parameter):
        return mapped
    if isinstance(mapped, nn.Parameter) and mapped is not value:
        return mapped
    # A parameter of its own, even of the same storage: ``module.double()`` changes parameters.
    return nn.Parameter(mapped, requires_grad=mapped.requires_grad)


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


def detached(tensor: Tensor) -> Tensor:
    """Share parameters without gradient; copy buffers, which a forward call may change."""
    if isinstance(tensor, nn.Parameter):
        return tensor.detach()
    return torch.clone(tensor.detach())


def trainable(tensor: Tensor) -> Tensor:
    """Share parameters, which go on asking for gradients as before; copy buffers."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return torch.clone(tensor.detach())


def owned(tensor: Tensor) -> Tensor:
    """Copy parameters and buffers; a parameter asks for gradients as before."""
    copied = torch.clone(tensor.detach())
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, requires_grad=tensor.requires_grad)
    return copied


def settled(tensor: Tensor) -> Tensor:
    """Copy parameters and buffers, none of which asks for gradients."""
    return torch.clone(tensor.detach())

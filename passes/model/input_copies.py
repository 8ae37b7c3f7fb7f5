"""Copies of inputs for calls, so that a model that writes to its inputs does not change them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.inputs.leaves import Inputs, leaves_in, map_leaves


def copy_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """Return copies of arguments: tensors keep their values, strides and shared memory.

    Only memory that the tensors reach is copied: a batch may be a view of a whole data set.
    """
    tensors = {id(leaf): leaf for leaf in leaves_in((args, kwargs)) if isinstance(leaf, Tensor)}
    groups: dict[object, list[Tensor]] = {}
    for key, tensor in tensors.items():
        groups.setdefault(_memory(tensor) or key, []).append(tensor)
    copies: dict[int, Tensor] = {}
    for group in groups.values():
        copies.update(zip(map(id, group), _copy_group(group), strict=True))
    inputs: Inputs = map_leaves(lambda leaf: copies.get(id(leaf), leaf), (args, kwargs))
    return inputs


def spare_inputs(module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """Return arguments that ``module`` may write to: copies if it writes to its inputs."""
    return copy_inputs(args, kwargs) if writes_to_inputs(module) else (args, kwargs)


def writes_to_inputs(module: GraphModule) -> bool:
    """Whether a node of ``module`` writes to one of its inputs, directly or through a view.

    A nested graph that writes to its own inputs counts: they may be inputs of the module.
    """
    return any(
        node.op == "placeholder"
        for _, graph_module in all_graphs(module)
        for node in overwritten(graph_module.graph)
    )


def _memory(tensor: Tensor) -> object:
    """Return a key that tensors with shared memory share; None for a tensor without such a key."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
        return None
    address = tensor.untyped_storage().data_ptr()
    return (address, tensor.device, tensor.dtype) if address else None


def _copy_group(group: list[Tensor]) -> list[Tensor]:
    first = group[0]
    if _memory(first) is None:
        return [_like(tensor.detach().clone(), tensor) for tensor in group]
    low = min(tensor.storage_offset() for tensor in group)
    high = max(map(_end, group))
    whole = torch.as_strided(first.detach(), (high - low,), (1,), low).clone()
    return [
        _like(whole.as_strided(each.shape, each.stride(), each.storage_offset() - low), each)
        for each in group
    ]


def _end(tensor: Tensor) -> int:
    """Return one past the last element of its memory that ``tensor`` reaches."""
    if not tensor.numel():
        return int(tensor.storage_offset())
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return int(tensor.storage_offset()) + sum((size - 1) * stride for size, stride in steps) + 1


def _like(copy: Tensor, original: Tensor) -> Tensor:
    return copy.requires_grad_(original.requires_grad)

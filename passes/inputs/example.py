"""Example inputs, in the form that torch.export reads correctly."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.leaves import Inputs, leaves_in, map_leaves


@dataclass(frozen=True)
class ExampleInputs:
    """The example inputs that a model was captured with.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        dynamic_shapes: Dimensions that stay free, as for ``torch.export.export``.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    dynamic_shapes: Any = None


def in_order(model: nn.Module, kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return keyword arguments in the order of the model's signature.

    torch.export gives the graph's arguments the order in which they are passed.
    """
    given = dict(kwargs or {})
    names = [name for name in inspect.signature(model.forward).parameters if name in given]
    return {name: given[name] for name in (*names, *given)}


def distinct(model: nn.Module, inputs: Inputs, shapes: Any) -> tuple[Inputs, Any]:
    """Return inputs without repeated tensors or tensors of the model; and dynamic shapes.

    torch.export identifies tensors by identity: two arguments with one tensor become one input, and
    a parameter among the inputs stays that parameter.
    """
    leaves = [leaf for leaf in leaves_in(inputs) if isinstance(leaf, Tensor)]
    seen = {id(tensor) for tensor in _find_own_tensors(model)}
    if not seen & set(map(id, leaves)) and len(set(map(id, leaves))) == len(leaves):
        return inputs, shapes
    from torch.export import ShapesCollection  # imports sympy, which takes a second

    if isinstance(shapes, ShapesCollection):  # they identify tensors by identity as well
        resolve: Any = shapes.dynamic_shapes  # it has no types
        shapes = resolve(model, *inputs)

    def unseen(leaf: object) -> object:
        if isinstance(leaf, Tensor) and id(leaf) in seen:
            return _copy(leaf)
        seen.add(id(leaf))
        return leaf

    return map_leaves(unseen, inputs), shapes


def _find_own_tensors(model: nn.Module) -> list[Tensor]:
    held = [value for module in model.modules() for value in vars(module).values()]
    plain = [value for value in held if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *plain]


def _copy(tensor: Tensor) -> Tensor:
    copy = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    try:
        copy.copy_(tensor.detach())
    except RuntimeError:  # elements that share memory, as in an expanded tensor
        copy = tensor.detach().clone()
    return copy.requires_grad_(tensor.requires_grad)

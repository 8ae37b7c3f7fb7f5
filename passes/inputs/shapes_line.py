"""The value of ``dynamic_shapes=`` that admits inputs of other sizes, as text to write."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from quantfx.passes.inputs.contract import InputContract, InputForm
from quantfx.passes.inputs.leaves import describe_leaves


class _Text(str):
    """Text that prints without quotes inside containers."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shapes_line(contract: InputContract, arguments: Mapping[str, Any]) -> str:
    """Return ``dynamic_shapes={...}`` in full; ``Dim.AUTO`` marks sizes that are or must be free.

    Args:
        contract: Contract of the graph that refuses the arguments.
        arguments: The arguments by name.
    """
    forms = {form.path: form for form in contract.forms}

    def text(path: str, leaf: object) -> object:
        form = forms.get(path)
        if form is None or not isinstance(leaf, Tensor):
            return None
        free = sorted({*form.free_dimensions, *other_dimensions(form, leaf)})
        return _Text(f"{{{', '.join(f'{at}: Dim.AUTO' for at in free)}}}") if free else None

    shapes = {name: describe_leaves(text, name, value) for name, value in arguments.items()}
    return f"dynamic_shapes={shapes} (from torch.export import Dim)"


def gather_shapes(
    shapes: Any, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Return dynamic shapes as torch.export wants them: ``{"args": (..., ...)}`` for ``*args``.

    A graph has one named argument for each element, and ``shapes_line`` uses these names; likewise
    for ``**kwargs``.

    Args:
        shapes: Dynamic shapes in either form; values other than a mapping are returned unchanged.
        signature: Signature of the model.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
    """
    if not isinstance(shapes, Mapping):
        return shapes
    rest, gathered = dict(shapes), dict[str, Any]()
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if name in rest:
            gathered[name] = rest.pop(name)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            gathered[name] = tuple(rest.pop(f"{name}_{at}", None) for at in range(len(value)))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            gathered[name] = {key: rest.pop(key, None) for key in value}
    return gathered | rest


def other_dimensions(form: InputForm, value: Tensor) -> list[int]:
    """Return the dimensions whose size the graph does not take; none if the rank differs."""
    if value.dim() != len(form.shape):
        return []
    return [
        place
        for place, (size, actual) in enumerate(zip(form.shape, value.shape, strict=True))
        if isinstance(size, int) and size != actual
    ]

"""A graph compiled for the one form of inputs that it was captured with.

Nothing of such a graph depends on anything but its inputs' shapes, so Dynamo, which would trace it
anew and check its guards in each call, is left out: that takes a third off the time to compile
ResNet-50 and some 4 % off a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.inductor.torch_internals import compile_last
from quantfx.passes.export.made_sizes import makes_sizes
from quantfx.passes.export.plain_outputs import Restore, take_out_plain
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.graphs import all_graphs


class TensorForm(NamedTuple):
    """What generated code takes for granted of a tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def form_of(value: Tensor) -> TensorForm:
    """Return the form of a tensor without free sizes."""
    # The stride of a dimension of one element is never multiplied with anything but zero.
    strides = zip(value.shape, value.stride(), strict=True)
    used = tuple(stride if size > 1 else 0 for size, stride in strides)
    return TensorForm(tuple(value.shape), used, value.dtype, value.device)


class StaticGraph:
    """A graph and, once ``compile`` was called, the code for it.

    Args:
        module: Not changed.
        forms: Of its placeholders; from ``static_forms``.
    """

    def __init__(self, module: GraphModule, forms: tuple[TensorForm, ...]) -> None:
        self._module: GraphModule | None = module
        self._forms = forms
        self._run: Callable[..., Any] | None = None
        self._restore: Restore | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether it can be called."""
        return self._run is not None

    def fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call with these inputs is one that the graph was captured for."""
        if kwargs or len(args) != len(self._forms):
            return False
        return all(
            type(value) in (Tensor, nn.Parameter) and form_of(value) == form
            for value, form in zip(args, self._forms, strict=True)
        )

    def compile(self, args: tuple[Any, ...]) -> None:
        """Compile, under the settings in force; the inputs must fit."""
        assert self._module is not None, "it compiles once"
        copy = clone(self._module)  # Inductor takes the calling convention off what it is given
        self._restore = take_out_plain(copy.graph)
        recompile(copy)
        self._run = compile_last(copy, list(args))
        self._module = None  # its weights are in the code now

    def __call__(self, *args: Any) -> Any:
        """Run what was compiled, for inputs that fit."""
        assert self._run is not None, "compile comes first"
        result = self._run(*args)
        return result if self._restore is None else self._restore(result)


def static_forms(module: GraphModule) -> tuple[TensorForm, ...] | None:
    """Return the forms of the placeholders; None if the graph is not one of its inputs alone.

    That is: a size is free or depends on data, an input is no tensor, a tensor is written to, or
    control flow decides.
    """
    if len(list(all_graphs(module))) > 1 or overwritten(module.graph) or makes_sizes(module):
        return None
    values = [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) != len(values) or not all(map(_is_static, tensors)):
        return None
    return tuple(form_of(value) for value in tensors)


def _is_static(value: Tensor) -> bool:
    return all(isinstance(size, int) for size in (*value.shape, *value.stride()))

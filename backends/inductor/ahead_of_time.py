"""A library compiled by AOTInductor, called like its module."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.backends.inductor.sealed_module import SealedModule
from quantfx.backends.inductor.torch_internals import load_package
from quantfx.passes.errors import InputError
from quantfx.passes.export.plain_outputs import Restore
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.memory_order import dense_strides, memory_order
from quantfx.passes.graph.nested_calls import nested_calls
from quantfx.passes.graph.state import written_state
from quantfx.passes.inputs.check import InputCheck
from quantfx.passes.inputs.contract import free_numbers
from quantfx.passes.inputs.leaves import leaves_in, leaves_of, leaves_with_paths, map_leaves
from quantfx.patterns.errors import QuantfxError


class LibraryInputs:
    """The form of inputs that a library is compiled for.

    The library takes inputs as in the example, by position or keyword. It reads their memory in the
    example's order, ignoring their strides.

    Args:
        module: The module to compile.
        args: Positional inputs of the example.
        kwargs: Keyword inputs of the example.
    """

    def __init__(
        self, module: GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._signature = inspect.signature(module.forward)
        named = [*zip(self._signature.parameters, args, strict=False), *kwargs.items()]
        self._paths = [
            f"{name}{path}" for name, value in named for path, _ in leaves_with_paths(value)
        ]
        self.args: tuple[Any, ...]
        self.kwargs: dict[str, Any]
        self.args, self.kwargs = map_leaves(_without_gaps, (args, dict(kwargs)))
        self._orders = [_order(leaf) for leaf in leaves_in((self.args, self.kwargs))]
        places = itertools.count()
        self._places = map_leaves(lambda _: next(places), (args, dict(kwargs)))
        written = overwritten(module.graph)
        self._writes = any(node.op == "placeholder" for node in written)

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return the leaves of a call's inputs in the library's order.

        Raises:
            InputError: the call has other inputs than the example.
        """
        try:
            given = dict(leaves_of(self._signature, args, dict(kwargs)))
        except TypeError as error:
            raise InputError(
                f"the library was compiled for ({self._names}): {error}", rule="input-names"
            ) from None
        if given.keys() != set(self._paths):
            raise InputError(
                f"the library was compiled for ({self._names}), and the call has "
                f"({', '.join(given)})",
                rule="input-names",
                fix="compile it again with an example like this",
            )
        return [given[path] for path in self._paths]

    def laid_out(self, leaves: list[Any]) -> list[Any]:
        """Return the leaves with tensors in the example's memory order."""
        return [
            _laid_out(leaf, order) if order is not None and isinstance(leaf, Tensor) else leaf
            for leaf, order in zip(leaves, self._orders, strict=True)
        ]

    def nested(self, leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword inputs as in the example."""
        args, kwargs = map_leaves(leaves.__getitem__, self._places)
        return args, kwargs

    def write_back(self, leaves: list[Any], laid_out: list[Any]) -> None:
        """Copy writes to copies of tensors back to the caller's tensors."""
        if not self._writes:
            return
        for theirs, ours in zip(leaves, laid_out, strict=True):
            if ours is not theirs and not torch.equal(ours, theirs):
                theirs.copy_(ours)

    @property
    def _names(self) -> str:
        return ", ".join(self._paths)


class AheadOfTimeModule(SealedModule):
    """A library compiled by AOTInductor; call it like the module.

    Args:
        package: The file of the library.
        kernels: Calls of lowered kernels in it.
        inputs: The form of inputs that it was compiled for.
        check: Refuses inputs that it is not valid for.
        restore: Makes the model's results from the library's flat tuple of tensors, if the model
            also returns numbers or text.
    """

    def __init__(
        self,
        package: Path,
        *,
        kernels: tuple[KernelCall, ...],
        inputs: LibraryInputs,
        check: InputCheck | None = None,
        restore: Restore | None = None,
    ) -> None:
        super().__init__()
        self.package = package
        self.kernels = kernels
        self._run = load_package(package)
        self._inputs = inputs
        self._check = check
        self._restore = restore

    def __deepcopy__(self, memo: dict[int, Any]) -> AheadOfTimeModule:
        """Return a module that runs the same, stateless library."""
        copy = AheadOfTimeModule(
            self.package,
            kernels=self.kernels,
            inputs=self._inputs,
            check=self._check,
            restore=self._restore,
        )
        memo[id(self)] = copy
        return copy

    def call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the compiled module for inputs of the shapes that it was compiled for.

        Raises:
            InputError: the library is not valid for the inputs.
        """
        if self._check is not None:
            self._check(args, kwargs)
        leaves = self._inputs.leaves(args, kwargs)
        with torch.no_grad():
            laid_out = self._inputs.laid_out(leaves)
            args, kwargs = self._inputs.nested(laid_out)
            result = self._run(*args, **kwargs)
            self._inputs.write_back(leaves, laid_out)
        return result if self._restore is None else self._restore(result)


def require_library(module: GraphModule) -> None:
    """Refuse models that AOTInductor of torch 2.13 breaks or cannot take.

    Raises:
        QuantfxError: names it.
    """
    written = [name for name, _ in written_state(module)]
    if written:
        message = (
            f"wrapper='aot': buffer '{written[0]}' is written to, and AOTInductor takes it for a "
            "constant: writes to it would be lost."
        )
        raise QuantfxError(message, rule="written-buffer", site=written[0], fix="use wrapper='cpp'")
    for path in free_numbers(module):
        message = f"wrapper='aot': input '{path}' is a number that varies, which AOTInductor loses"
        fix = "let the model take it as a tensor, such as torch.tensor(0), or use wrapper='cpp'"
        raise QuantfxError(message, rule="aot-number", site=path, fix=fix)
    for _, graph_module in all_graphs(module):
        if any(call.is_choice for call in nested_calls(graph_module)):
            message = "wrapper='aot': AOTInductor does not take int8 kernels in torch.cond."
            raise QuantfxError(message, rule="aot-branch", fix="use wrapper='cpp'")


def _without_gaps(leaf: Any) -> Any:
    """Return an example without gaps in memory, into whose form other inputs can be copied."""
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or _order(leaf) is not None:
        return leaf
    return leaf.detach().clone(memory_format=torch.contiguous_format)


def _order(leaf: Any) -> list[int] | None:
    return memory_order(leaf) if isinstance(leaf, Tensor) else None


def _laid_out(value: Tensor, order: list[int]) -> Tensor:
    if value.layout is not torch.strided or value.dim() != len(order):
        return value
    strides = dense_strides(value.shape, order)
    sizes_and_strides = zip(value.shape, value.stride(), strides, strict=True)
    if all(given == wanted for size, given, wanted in sizes_and_strides if size > 1):
        return value
    result = torch.empty_strided(value.shape, strides, dtype=value.dtype, device=value.device)
    return result.copy_(value)

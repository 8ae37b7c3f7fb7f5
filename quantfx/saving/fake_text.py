"""Fake values of nodes (shapes and dtypes) as plain data, and back.

A size that is not a number, such as ``2*s77``, comes back as a symbol of that name: equal sizes
stay equal, and drawings read the same. Relations between sizes are not kept; a compiler traces the
graph anew and finds them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.value_text import decode, encode
from quantfx.patterns.sizes import likely

_LARGEST = 2**62
_UNKNOWN = 8192  # stands for sizes that depend on data


class FakeWriter:
    """Turns fake values into plain data.

    Attributes:
        sizes: What each symbol was in the example.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def encode(self, value: object) -> Any:
        """Return the value as plain data; None if there is nothing to store."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, (list, tuple)):
            return {"values": [self.encode(item) for item in cast(list[object], value)]}
        if isinstance(value, torch.SymInt):
            return {"size": self._size(value)}
        if isinstance(value, (torch.SymFloat, torch.SymBool)):
            return {"float" if isinstance(value, torch.SymFloat) else "bool": str(value)}
        if type(value) in (bool, int, float, str):
            return {"plain": encode(value)}
        return None

    def _tensor(self, value: Tensor) -> Any:
        if value.layout is not torch.strided:
            return None
        return {
            "dtype": encode(value.dtype),
            "shape": [self._size(size) for size in value.shape],
            "strides": [self._size(stride) for stride in value.stride()],
            "device": str(value.device),
        }

    def _size(self, size: int | torch.SymInt) -> int | str:
        if not isinstance(size, torch.SymInt):
            return size
        text = str(size)
        if text.lstrip("-").isdigit():
            return int(text)
        if text not in self.sizes:
            self.sizes[text] = likely(size, _UNKNOWN)
        return text


class FakeReader:
    """Makes fake values from plain data.

    Args:
        sizes: What each symbol was in the example.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._symbols: dict[str, Any] = {}

    def decode(self, data: dict[str, Any]) -> Any:
        """Return the value that ``data`` describes."""
        if "shape" in data:
            return self._tensor(data)
        if "values" in data:
            return tuple(None if each is None else self.decode(each) for each in data["values"])
        if "size" in data:
            return self._size(data["size"])
        if "float" in data:
            symbol = _symbol(data["float"], real=True)
            return self._shapes.create_symfloatnode(symbol, hint=0.0)
        if "bool" in data:
            return self._shapes.create_symboolnode(self._symbol(data["bool"], 1))
        return decode(data["plain"], {})

    def _tensor(self, data: dict[str, Any]) -> Tensor:
        shape = [self._size(size) for size in data["shape"]]
        strides = [self._size(stride) for stride in data["strides"]]
        with self._mode:
            return torch.empty_strided(
                shape, strides, dtype=decode(data["dtype"], {}), device=data["device"]
            )

    def _size(self, size: int | str) -> Any:
        if not isinstance(size, str):
            return size
        if size not in self._symbols:
            hint = self._sizes[size]
            symbol = self._symbol(size, hint)
            self._symbols[size] = self._shapes.create_symintnode(symbol, hint=hint)
        return self._symbols[size]

    def _symbol(self, name: str, hint: int) -> Any:
        symbol = _symbol(name, integer=True, nonnegative=True)
        if symbol not in self._shapes.backed_var_to_val:
            self._shapes.add_backed_var_to_val(symbol, hint)
            self._shapes.constrain_symbol_range(symbol, 0, _LARGEST)
        return symbol

    @cached_property
    def _mode(self) -> Any:
        return fake_mode()

    @cached_property
    def _shapes(self) -> Any:
        return self._mode.shape_env


def fake_mode() -> Any:
    """Return a new mode of fake tensors, with its own symbols."""
    # Exporting something is the public way to get one.
    program = torch.export.export(nn.Identity(), (torch.zeros(1),))
    return next(iter(program.graph.nodes)).meta["val"].fake_mode


def _symbol(name: str, **assumptions: bool) -> Any:
    # Comes with torch, without types; it takes a second to import, and few graphs have free sizes.
    from sympy import Symbol  # type: ignore[import-untyped]

    return Symbol(name, **assumptions)

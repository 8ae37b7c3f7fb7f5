"""What calling a user's module changes in it: plain attributes, and buffers, which are put back."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_STORED = ("_parameters", "_buffers")
_OWN = frozenset(vars(nn.Module()))  # what every module has: parameters, hooks, the mode


class ModelState:
    """A module's attributes and buffers at one moment.

    Containers among the attributes are compared by what they hold; tensors and other objects by
    identity, numbers and text by value.

    Args:
        model: Not changed.
        buffers: Whether to keep what buffers hold, too.
    """

    def __init__(self, model: nn.Module, *, buffers: bool = True) -> None:
        self._modules = list(model.named_modules())
        self._attributes = [dict(_plain(module)) for _, module in self._modules]
        self._held = [_held(attributes) for attributes in self._attributes]
        self._stored = [{kind: dict(vars(m)[kind]) for kind in _STORED} for _, m in self._modules]
        own = {id(buffer): buffer for buffer in model.buffers()} if buffers else {}
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in own.values()]

    def changed(self) -> list[str]:
        """Return the paths of the plain attributes that are not what they were."""
        found: list[str] = []
        for (path, module), held in zip(self._modules, self._held, strict=True):
            now = _held(_plain(module))
            for name in sorted(now.keys() | held.keys()):
                if name not in now or name not in held or not _same(held[name], now[name]):
                    found.append(f"{path}.{name}" if path else name)
        return found

    def restore(self) -> None:
        """Put everything back."""
        states = zip(self._modules, self._attributes, self._held, self._stored, strict=True)
        for (_, module), attributes, held, stored in states:
            for name in set(_plain(module)) - set(attributes):
                del module.__dict__[name]
            for name, value in attributes.items():
                _refill(value, held[name])
                module.__dict__[name] = value
            for kind, tensors in stored.items():
                vars(module)[kind].update(tensors)
        with torch.no_grad():
            for buffer, before in self._buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


@contextmanager
def restored(model: nn.Module, *, buffers: bool = True) -> Generator[ModelState]:
    """Put back what calls of ``model`` change in it."""
    state = ModelState(model, buffers=buffers)
    try:
        yield state
    finally:
        state.restore()


def _plain(module: nn.Module) -> Mapping[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _OWN}


def _held(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) for name, value in attributes.items()}


def _copied(value: Any) -> Any:
    """Return a copy of nested plain containers, and of what a tensor holds a version."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    if type(value) is list:
        return [_copied(item) for item in value]
    if type(value) is tuple:
        return tuple(_copied(item) for item in value)
    if isinstance(value, Tensor):
        return _TensorState(value)
    return value


class _TensorState:
    """A tensor and how often it was written to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.version = 0 if tensor.is_inference() else tensor._version
        self.before = tensor.detach().clone()

    def put_back(self) -> None:
        """Undo what was written."""
        if not self.tensor.is_inference() and self.tensor._version != self.version:
            with torch.no_grad():
                self.tensor.copy_(self.before)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if type(one) is _TensorState:
        return bool(one.tensor is other.tensor and one.version == other.version)
    if type(one) is dict:
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) in (int, float, bool, str):
        return bool(one == other or (one != one and other != other))
    return one is other


def _refill(value: Any, held: Any) -> None:
    """Give a container, or a tensor, that was changed in place what it held."""
    if type(value) is dict:
        before = {key: _value(item) for key, item in held.items()}
        value.clear()
        value.update(before)
    elif type(value) is list:
        value[:] = [_value(item) for item in held]
    elif isinstance(value, Tensor):
        held.put_back()


def _value(held: Any) -> Any:
    if isinstance(held, _TensorState):
        held.put_back()
        return held.tensor
    if type(held) is dict:
        return {key: _value(item) for key, item in held.items()}
    if type(held) is list:
        return [_value(item) for item in held]
    if type(held) is tuple:
        return tuple(_value(item) for item in held)
    return held

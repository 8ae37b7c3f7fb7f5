"""Modules that cache a kernel's packed form of constants: packed at the first call, then kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Packed(nn.Module, ABC):
    """``pack(*tensors)``, computed when it is first called.

    Packed values cannot be copied or stored, so a copy and an unpickled module pack again. A module
    also packs again after a write to one of its tensors, except a write through ``.data``. A
    tracing compiler sees the packing itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: Any = None
        self._packed_from: tuple[tuple[int, int], ...] | None = None

    @abstractmethod
    def pack(self, *tensors: Any) -> Any:
        """Return what the kernel takes in place of ``tensors``."""

    def forward(self, *tensors: Any) -> Any:
        """Return the result of ``pack`` for ``tensors``, some of which may be None."""
        if torch.compiler.is_compiling() or type(tensors[0]) not in (Tensor, nn.Parameter):
            return self.pack(*tensors)
        version = tuple(_version(each) for each in tensors)
        if self._packed is None or self._packed_from != version:
            self._packed, self._packed_from = self.pack(*tensors), version
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None, "_packed_from": None}


def _version(tensor: Any) -> tuple[int, int]:
    """Return the address of ``tensor`` and how often it was written to."""
    if not isinstance(tensor, Tensor):
        return 0, 0
    # Inference tensors do not count writes; they are rarely written to.
    count = 0 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]
    return tensor.data_ptr(), count

"""The distance of two outputs, and the bytes of a module."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    """Return ``10 log10(sum ref^2 / sum (ref - other)^2)``: 20 dB is an error of a tenth.

    1. equal tensors -> ``inf``
    2. a reference of zeros that ``other`` misses -> ``-inf``
    3. a NaN in either -> NaN

    Raises:
        ValueError: the shapes differ.
    """
    _require_same_shape(reference, other)
    exact = reference.double()
    noise = (exact - other.double()).square().sum()
    if noise == 0:
        return math.inf
    return (10 * (exact.square().sum() / noise).log10()).item()


def top1_agreement(reference: Tensor, other: Tensor) -> float:
    """Return the share of rows of ``(n, classes)`` whose largest entry is the same one.

    Raises:
        ValueError: the shapes differ or are not 2-D with at least one row.
    """
    _require_same_shape(reference, other)
    if reference.dim() != 2 or not len(reference):
        raise ValueError(f"expected (n, classes) with n > 0, got {tuple(reference.shape)}")
    return (reference.argmax(1) == other.argmax(1)).double().mean().item()


def size_in_bytes(module: nn.Module) -> int:
    """Return the bytes of all tensors of ``module``; shared memory counts once."""
    storages = (tensor.untyped_storage() for tensor in _tensors(module))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():  # a graph may hold constants as plain attributes
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))


def _require_same_shape(reference: Tensor, other: Tensor) -> None:
    if reference.shape != other.shape:
        raise ValueError(f"shapes {tuple(reference.shape)} and {tuple(other.shape)} differ")

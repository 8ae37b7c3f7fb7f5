"""Example inputs as plain data and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.calling_convention import flatten, unflatten
from quantfx.passes.inputs.value_text import decode, encode
from quantfx.saving.graph_text import is_plain


def encode_inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, values: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return inputs as plain data, and their tensors by the keys in the data.

    Args:
        args: Positional inputs.
        kwargs: Keyword inputs.
        values: Whether to keep the values of tensors, or their form only.

    Raises:
        FileError: files cannot store an input; names its place.
    """
    leaves, structure = flatten((args, kwargs))
    tensors = {
        f"input{place}": leaf.detach()
        for place, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and values
    }
    encoded = [_leaf(place, leaf, values) for place, leaf in enumerate(leaves)]
    return {"structure": structure, "leaves": encoded}, tensors


def _leaf(place: int, leaf: object, values: bool) -> dict[str, Any]:
    if isinstance(leaf, Tensor):
        if not is_plain(leaf):
            raise FileError(
                f"input {place} is a {type(leaf).__name__}, layout {leaf.layout}, "
                f"on {leaf.device}: files hold plain dense tensors only",
                rule="no-text-form",
                site=str(place),
            )
        if values:
            return {"tensor": f"input{place}"}
        return {
            "dtype": encode(leaf.dtype),
            "shape": list(leaf.shape),
            "strides": list(leaf.stride()),
        }
    try:
        return {"plain": encode(leaf)}
    except FileError:
        raise FileError(
            f"input {place} is a {type(leaf).__name__}: files hold tensors, numbers and text only",
            rule="no-text-form",
            site=str(place),
        ) from None


def decode_inputs(
    data: dict[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword inputs; tensors without stored values are zeros.

    Args:
        data: From ``encode_inputs``.
        tensors: Tensors that came with it.

    Raises:
        FileError: this process does not know the class of a container.
    """
    leaves = [_decode_leaf(leaf, tensors) for leaf in data["leaves"]]
    args, kwargs = unflatten(leaves, data["structure"])
    return args, kwargs


def _decode_leaf(leaf: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in leaf:
        return tensors[leaf["tensor"]]
    if "plain" in leaf:
        return decode(leaf["plain"], {})
    dtype = decode(leaf["dtype"], {})
    return torch.empty_strided(leaf["shape"], leaf["strides"], dtype=dtype).zero_()

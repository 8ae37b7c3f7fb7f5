"""Names of dtypes, shapes and ranges in drawings: ``u8[0,127]``, ``f32 1x3x8x8``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from quantfx.passes.graph.dtypes import dtype_name

TIMES = "\N{MULTIPLICATION SIGN}"
_SHOWN_RESULTS = 3


def range_name(dtype: object, low: object, high: object) -> str:
    """Return ``u8``, or with the range if it is not the dtype's full range: ``u8[0,127]``."""
    if not isinstance(dtype, torch.dtype):
        return "?"
    full = torch.iinfo(dtype) if not dtype.is_floating_point else None
    name = dtype_name(dtype)
    if full is None or (low, high) == (full.min, full.max) or low is None:
        return name
    return f"{name}[{low},{high}]"


def shape_name(shape: Iterable[object]) -> str:
    """Return the sizes joined by ``x``, symbolic sizes by symbol; ``scalar`` if there are none."""
    sizes = (str(size) for size in shape)
    return TIMES.join(f"({size})" if " " in size else size for size in sizes) or "scalar"


def value_name(value: object) -> str:
    """Return dtype and shape of a node's value, or of each of several results; or ""."""
    if isinstance(value, Tensor):
        return f"{dtype_name(value.dtype)} {shape_name(value.shape)}"
    if isinstance(value, (list, tuple)):
        results = cast(Sequence[Any], value)
        words = [value_name(result) for result in results[:_SHOWN_RESULTS]]
        if len(results) > _SHOWN_RESULTS:
            words.append("…")
        return ", ".join(word for word in words if word)
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return str(value)
    return ""

"""What torch knows about free sizes; torch's own module for them takes a second to import.

Most models have no free sizes, so that module is imported when the first size is asked for.
"""

from __future__ import annotations

from typing import Any


def known_true(condition: Any) -> bool:
    """Whether a condition holds for all values of the sizes; puts no guard on data."""
    if isinstance(condition, bool):
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def depends_on_data(value: Any) -> bool:
    """Whether a size, or some size of a tensor, depends on data."""
    if isinstance(value, int):
        return False
    from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

    return has_free_unbacked_symbols(value)


def likely(size: Any, fallback: int) -> int:
    """Return the value of a size at capture; ``fallback`` if the size depends on data."""
    if isinstance(size, int):
        return size
    from torch.fx.experimental.symbolic_shapes import optimization_hint

    return optimization_hint(size, fallback=fallback)

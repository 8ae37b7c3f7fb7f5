"""What torch knows of sizes that are free; its own module of them takes a second to import.

Most models have none, so that it is imported when the first size is asked for.
"""

from __future__ import annotations

from typing import Any


def known_true(condition: Any) -> bool:
    """Whether a condition on sizes holds for all that they may be; asks nothing of data."""
    if isinstance(condition, bool):
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def depends_on_data(value: Any) -> bool:
    """Whether a size, or one of a tensor's, depends on data."""
    if isinstance(value, int):
        return False
    from torch.fx.experimental.symbolic_shapes import has_free_unbacked_symbols

    return has_free_unbacked_symbols(value)


def likely(size: Any, fallback: int) -> int:
    """Return what a size was at capture, ``fallback`` if it depends on data."""
    if isinstance(size, int):
        return size
    from torch.fx.experimental.symbolic_shapes import optimization_hint

    return optimization_hint(size, fallback=fallback)

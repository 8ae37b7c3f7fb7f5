"""The passes known when pipelines are parsed, besides the passes that a caller names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantfx.passes.pipeline.base import Pass

Passes = tuple[type[Pass], ...]

_LATE: list[tuple[tuple[str, ...], Callable[[], Passes]]] = []


def own_passes() -> Passes:
    """Return every pass class of ``quantfx.passes``."""
    from quantfx.passes.catalog import PASSES  # the catalog imports every pass

    return PASSES


def known_passes(name: str) -> Iterator[type[Pass]]:
    """Yield quantfx's own passes, then added passes that may be called ``name``, importing them."""
    yield from own_passes()
    for names, source in _LATE:
        if name in names:
            yield from source()


def known_names() -> list[str]:
    """Return every name that a pass of quantfx may have."""
    own = [name for kind in own_passes() for name in kind.names()]
    return own + [name for names, _ in _LATE for name in names]


def add_known_passes(names: tuple[str, ...], source: Callable[[], Passes]) -> None:
    """Make the passes ``names`` known to parsing; ``source`` imports and returns them."""
    _LATE.append((names, source))

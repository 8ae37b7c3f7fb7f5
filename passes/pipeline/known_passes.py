"""The passes that pipelines are parsed with, beside those that a caller names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantfx.passes.pipeline.base import Pass

Passes = tuple[type[Pass], ...]

_BEYOND: list[Callable[[], Passes]] = []


def own_passes() -> Passes:
    """Return every pass class of ``quantfx.passes``."""
    from quantfx.passes.catalog import PASSES  # the catalog imports every pass

    return PASSES


def known_passes() -> Iterator[type[Pass]]:
    """Yield those, and then what was added, which is imported when it is reached."""
    yield from own_passes()
    for source in _BEYOND:
        yield from source()


def add_known_passes(source: Callable[[], Passes]) -> None:
    """Let pipelines be parsed with the passes that ``source`` imports and returns."""
    _BEYOND.append(source)

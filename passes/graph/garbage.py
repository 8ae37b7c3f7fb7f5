"""Pause Python's garbage collector while many long-lived objects are created."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collection() -> Generator[None]:
    """Keep the collector from repeatedly walking all objects while graphs are created.

    Exports and passes create many small long-lived objects; for 3,000 operators the walks cost a
    third of a pipeline's run. Garbage from that time is collected later.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

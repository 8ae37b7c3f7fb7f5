"""Hold Python's garbage collector while many objects are made that live on."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collection() -> Generator[None]:
    """Keep the collector from walking all objects again and again while graphs are made.

    Exports and passes make many small objects that live on; on 3,000 operators the walks cost a
    third of a pipeline's run. What is garbage meanwhile is collected later.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

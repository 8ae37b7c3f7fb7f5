"""Undo what calls of a user's module change in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from quantfx.passes.model.object_contents import COPIES, Part, is_value, parts_of
from quantfx.passes.model.object_links import is_opened, links_of


class ModelState:
    """Everything that a module's attributes lead to, at one moment: modules, objects, containers.

    Args:
        model: Not changed.
        buffers: Whether to keep the values of buffers too. Parameters are never copied.
    """

    def __init__(self, model: nn.Module, *, buffers: bool = True) -> None:
        own = {id(buffer) for buffer in model.buffers()}
        uncopied = {id(parameter) for parameter in model.parameters()} | (set() if buffers else own)
        self._parts = list(_find_reachable(model, uncopied))
        for part in self._parts:
            if id(part.owner) in own:
                part.is_plain = False

    def changed(self) -> list[str]:
        """Return the paths of the plain attributes that changed."""
        found = [path for part in self._parts if part.is_plain for path in part.changed()]
        return list(dict.fromkeys(found))

    def restore(self) -> None:
        """Restore everything."""
        for part in self._parts:
            part.restore()


@contextmanager
def restored(model: nn.Module, *, buffers: bool = True) -> Generator[ModelState]:
    """Restore what calls of ``model`` change in it."""
    state = ModelState(model, buffers=buffers)
    try:
        yield state
    finally:
        state.restore()


def _find_reachable(model: nn.Module, uncopied: set[int]) -> Iterator[Part]:
    """Yield the parts of every object, each once, under the first path that leads to it."""
    pending: deque[tuple[str, Any]] = deque([("self", model)])
    seen: dict[int, Any] = {}  # keeps the objects alive, so that no id is reused
    while pending:
        path, value = pending.popleft()
        if is_value(value) or id(value) in seen or not is_opened(value):
            continue
        seen[id(value)] = value
        pending += links_of(value, path)
        if id(value) in uncopied:
            continue
        for part in parts_of(value, path):
            yield part
            if not isinstance(part, COPIES):
                pending += [(part.name(key), item) for key, item in part.before]

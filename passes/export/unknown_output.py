"""Results of a model that torch.export does not know, and the line to write for them."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

_FOUND = re.compile(r"Found (?:<class '([^']+)'>|([\w.]+)) in output, which is not a known type")


def unknown_output(error: Exception) -> str | None:
    """Return what to do about an object among the results; None if the error has another cause.

    Args:
        error: The error of torch.export.
    """
    found = _FOUND.search(str(error))
    if found is None:
        return None
    name = found[1] or found[2]
    short = name.rpartition(".")[2]
    if short.endswith("Cache"):
        return (
            f"it returns a {short}, which torch.export does not know: give the model "
            "use_cache=False (example_kwargs={'use_cache': False}, or "
            "model.config.use_cache = False), a DynamicCache, or write "
            f"torch.utils._pytree.register_pytree_node({short}, flatten, unflatten, "
            "serialized_type_name=...) before the export"
        )
    if dataclasses.is_dataclass(_class_of(name)):
        return (
            f"it returns a {short}, a dataclass that torch.export does not know: write "
            f"torch.export.register_dataclass({short}) before the export"
        )
    return (
        f"it returns a {name.removeprefix('builtins.')}, which no graph holds: return tensors, "
        "numbers, text and None, in tuples, lists and dicts; quantfx.auto takes the model as it is"
    )


def returns_cache(error: object) -> bool:
    """Whether torch.export does not know a cache among a model's results."""
    found = _FOUND.search(str(error))
    return found is not None and (found[1] or found[2]).endswith(".DynamicCache")


def _class_of(name: str) -> Any:
    module, _, path = name.rpartition(".")
    while module and module not in sys.modules:
        module, _, part = module.rpartition(".")
        path = f"{part}.{path}"
    found: Any = sys.modules.get(module)
    for part in path.replace("<locals>.", "").split("."):
        found = getattr(found, part, None)
    return found

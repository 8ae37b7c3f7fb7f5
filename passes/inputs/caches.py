"""Caches of Hugging Face models among inputs and outputs, which must be registered with torch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from torch.utils import _pytree as pytree

from quantfx.passes.errors import CaptureError

_LIBRARY = "transformers"
_REGISTERS = "transformers.integrations.executorch"
_KNOWN = "DynamicCache"
_STATIC = "StaticCache"


def know_caches(values: Any) -> None:
    """Let torch see the tensors inside caches among ``values``.

    transformers has a function that registers its cache, and leaves calling it to the exporter.

    Raises:
        CaptureError: a cache of a kind that transformers cannot register; says what to write.
    """
    if _LIBRARY not in sys.modules:
        return
    for leaf in pytree.tree_leaves(values):
        kind = type(leaf)
        if not kind.__module__.startswith(f"{_LIBRARY}.cache_utils"):
            continue
        if kind.__name__ != _KNOWN or not register_dynamic_cache():
            raise CaptureError(
                f"the example holds a {kind.__name__}, which no graph takes as an input",
                rule="export-rejects",
                site=kind.__name__,
                fix=_advice(kind.__name__),
            )


def register_dynamic_cache() -> bool:
    """Register transformers' ``DynamicCache`` as transformers does; return False if it has none."""
    try:
        register = importlib.import_module(_REGISTERS).register_dynamic_cache_export_support
    except (ImportError, AttributeError):
        return False
    register()
    return True


def _advice(name: str) -> str:
    if name == _STATIC:
        return (
            f"let the model keep it in buffers: {_REGISTERS}."
            "TorchExportableModuleWithStaticCache(model, batch_size=..., max_cache_len=...)"
        )
    return (
        "use a DynamicCache, or write torch.utils._pytree.register_pytree_node("
        f"{name}, flatten, unflatten, serialized_type_name=...) before this"
    )

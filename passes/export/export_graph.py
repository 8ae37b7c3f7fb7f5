"""Export a model with torch.export as a plain graph module."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.export.any_length import AnyLength, restore_operators
from quantfx.passes.export.export_reason import export_reason
from quantfx.passes.export.watch_layout import LAYOUT_KEY, has_strides, watched_layout
from quantfx.passes.inputs.caches import register_dynamic_cache
from quantfx.passes.inputs.example import distinct
from quantfx.passes.inputs.leaves import Inputs, leaves_in

_FOUND = re.compile(r"Found (?:<class '([^']+)'>|([\w.]+)) in output, which is not a known type")


@contextmanager
def _unmarked(inputs: Inputs) -> Generator[None]:
    """Remove torch.export's marks of free dimensions on inputs, which it leaves if it fails.

    Otherwise the next export or torch.compile would treat these dimensions as free as well.
    """
    before = [(leaf, dict(vars(leaf))) for leaf in leaves_in(inputs) if isinstance(leaf, Tensor)]
    try:
        yield
    finally:
        for tensor, attributes in before:
            vars(tensor).clear()
            vars(tensor).update(attributes)


def export_graph(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None, dynamic_shapes: Any
) -> GraphModule:
    """Return the graph of ``model`` in torch.export's training IR, as the model is now.

    Its ``meta[LAYOUT_KEY]`` says whether it is valid for the layout of these inputs only.

    Raises:
        CaptureError: torch.export rejects it.
    """
    given = args, kwargs or {}
    (args, kwargs), dynamic_shapes = distinct(model, given, dynamic_shapes)
    try:
        return _export(model, given, args, kwargs, dynamic_shapes)
    except CaptureError as error:
        if not returns_cache(error.__cause__) or not register_dynamic_cache():
            raise
    return _export(model, given, args, kwargs, dynamic_shapes)


def _export(
    model: nn.Module,
    given: Inputs,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
) -> GraphModule:
    try:
        with (
            _unmarked(given),
            warnings.catch_warnings(),
            AnyLength(),
            watched_layout(model) as reads,
        ):
            # torch's own recurrent layers keep a list of their weights, which export reads.
            warnings.filterwarnings(
                "ignore", message=r".*_flat_weights\[0\].*assigned during export"
            )
            program = torch.export.export(
                model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False
            )
        exported = program.module(check_guards=False)
    except Exception as error:  # torch.export raises many kinds, all meaning "rejected"
        reason = unknown_output(error) or export_reason(error)
        raise CaptureError(
            f"torch.export rejects {type(model).__name__}: {reason}", rule="export-rejects"
        ) from error
    if not isinstance(exported, GraphModule):
        message = f"torch.export returned a {type(exported).__name__}, not a GraphModule"
        raise CaptureError(message, rule="export-rejects")
    restore_operators(exported)
    exported.meta[LAYOUT_KEY] = reads.seen or has_strides(exported)
    return exported


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

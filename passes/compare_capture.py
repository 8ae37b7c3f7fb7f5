"""Run a model and the graph captured of it side by side, once, before anything builds on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.differing_module import differing_module
from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs import leaves_in, leaves_with_paths, map_leaves
from quantfx.passes.model_state import restored
from quantfx.passes.state import preserved_state
from quantfx.patterns.errors import QuantfxWarning

# Of the largest magnitude: a graph of the same operators is some 1e-6 apart.
_TOLERANCE = 1e-3
_SEED = 0

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def compare_capture(
    model: nn.Module, graph: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Warn where ``graph`` computes something else than ``model`` on the example inputs.

    A model that keeps state in plain attributes is called three times, the second time with other
    values, and refused if the graph, which knows the state of the capture only, does not follow.
    Everything that the calls change, in the model and in the graph, is put back.

    Args:
        model: What was captured, in eval mode.
        graph: What came of it, ready to be called.
        args: Positional example inputs.
        kwargs: Keyword example inputs.

    Raises:
        CaptureError: results depend on state in plain attributes; names them.
    """
    if not all(map(_is_real, _tensors(model, args, kwargs))):
        return
    inputs = args, kwargs
    try:
        with restored(model) as state:
            theirs = _run(model, [inputs])
            changed = state.changed()
    except Exception as error:  # the model's own, whatever it be
        _warn(
            f"{type(model).__name__} fails on the example inputs, and was not compared with its "
            f"graph: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
        return
    with preserved_state(graph):
        ours = _run(graph, [inputs])
    if changed:
        _require_stateless(model, graph, inputs, changed)
    difference = _difference(theirs[0], ours[0])
    if difference:
        with restored(model), preserved_state(graph):
            where = _seeded(lambda: differing_module(model, graph, args, kwargs, _TOLERANCE))
        _warn(
            f"the captured graph computes something else than {type(model).__name__} on the "
            f"example inputs: {difference}. {where}"
        )


def _require_stateless(
    model: nn.Module, graph: GraphModule, inputs: Inputs, changed: list[str]
) -> None:
    calls = [inputs, map_leaves(_other, inputs), inputs]
    with restored(model), preserved_state(graph):
        try:
            pairs = zip(_run(model, calls), _run(graph, calls), strict=True)
            differs = any(_difference(theirs, ours) for theirs, ours in pairs)
        except Exception:  # a second call is not possible: that depends on the first
            differs = True
    if differs:
        names = ", ".join(f"self.{name}" for name in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CaptureError(
            f"{type(model).__name__} keeps state in plain attributes, {names}{more}, and a graph "
            "would start each call from what they held at the capture: use register_buffer for "
            "tensors, and write to them in place (self.h.copy_(...)), or make the state an input "
            "and an output"
        )


def _run(function: Callable[..., Any], calls: list[Inputs]) -> list[Any]:
    def all_calls() -> list[Any]:
        with torch.no_grad():
            return [map_leaves(_detached, function(*args, **kwargs)) for args, kwargs in calls]

    results: list[Any] = _seeded(all_calls)
    return results


def _seeded(function: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return function()


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _other(leaf: Any) -> Any:
    """Other values of the same form, for a call in between."""
    return leaf * 0.5 if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _difference(theirs: Any, ours: Any) -> str:
    """Say how two results differ; nothing if they do not."""
    mine = leaves_in(ours)
    expected = leaves_with_paths(theirs)
    if len(mine) != len(expected):
        return f"{len(mine)} values in its result, where the model has {len(expected)}"
    for (path, right), left in zip(expected, mine, strict=True):
        told = _leaf_difference(right, left)
        if told:
            return f"output{path} {told}"
    return ""


def _leaf_difference(right: Any, left: Any) -> str:
    if not isinstance(right, Tensor) or not isinstance(left, Tensor):
        return ""  # a graph has numbers where the model may have others: said when it is called
    if right.shape != left.shape or right.dtype != left.dtype:
        return f"is {left.dtype} {tuple(left.shape)}, not {right.dtype} {tuple(right.shape)}"
    if not right.numel():
        return ""
    wide = torch.complex128 if right.is_complex() else torch.float64
    right, left = right.to(wide), left.to(wide)
    finite = right[torch.isfinite(right)].abs()
    bound = _TOLERANCE * (float(finite.max()) if finite.numel() else 0.0)
    far = ~torch.isclose(left, right, rtol=0.0, atol=bound, equal_nan=True)
    if not bool(far.any()):
        return ""
    share = float(far.double().mean())
    return f"differs in {share:.0%} of its values by more than {bound:.2g}"


def _is_real(tensor: Tensor) -> bool:
    """Whether it holds values: neither a meta tensor nor of a tracer's own class."""
    return not tensor.is_meta and type(tensor) in (Tensor, nn.Parameter)


def _tensors(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    given = [leaf for leaf in leaves_in((args, kwargs)) if isinstance(leaf, Tensor)]
    return [*given, *model.parameters(), *model.buffers()]


def _warn(message: str) -> None:
    warnings.warn(message, QuantfxWarning, stacklevel=4)

"""Run a model and its captured graph side by side, before anything builds on the graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.calling_convention import is_of_library
from quantfx.passes.inputs.leaves import Inputs, leaves_in, leaves_with_paths, map_leaves
from quantfx.passes.model.differing_module import differing_module
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.model.state import restored
from quantfx.patterns.errors import warn

# Relative to the largest magnitude: a graph of the same operators differs by about 1e-6.
_TOLERANCE = 1e-3
_SEED = 0


def compare_capture(
    model: nn.Module,
    graph: GraphModule,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    training: bool = False,
) -> None:
    """Warn if ``graph`` and ``model`` compute different results on the example inputs.

    Both are called twice, with copies of the inputs. A model that keeps state in plain attributes
    is called four more times, once with other values. It is refused if the graph, which knows only
    the state at capture, does not follow. Everything that the calls change, in the model and in the
    graph, is restored.

    Args:
        model: The captured model, in eval mode.
        graph: The captured graph, ready to be called.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        training: Whether to look for state that training uses as well; results are compared as in
            evaluation.

    Raises:
        CaptureError: results depend on state in plain attributes, which it names; or the graph
            fails on the inputs.
    """
    if not all(map(_is_real, _tensors(model, args, kwargs))):
        return
    judge = _Judge(model, graph)
    with _modes_kept(model), _modes_kept(graph):
        if training:
            if not any(module.training for module in model.modules()):
                _set_modes(model, training=True)
            graph.train()
            _require_stateless_training(judge, (args, kwargs))
        _set_modes(model, training=False)
        graph.eval()
        _compare(judge, (args, kwargs))


def _require_stateless_training(judge: _Judge, inputs: Inputs) -> None:
    try:
        with restored(judge.model) as state:
            judge.run(judge.model, [inputs])
            changed = state.changed()
    except Exception:  # the model's own error, as of a batch norm with a single row
        return
    if changed:
        judge.require_stateless(inputs, changed)


def _compare(judge: _Judge, inputs: Inputs) -> None:
    model, graph = judge.model, judge.graph
    try:
        with restored(model) as state:
            theirs = judge.run(model, [inputs])
            changed = state.changed()  # now: a second call may put back what the first one changed
            theirs += judge.run(model, [inputs])
    except Exception as error:  # the model's own error, of any kind
        _warn(
            type(model).__name__,
            f"{type(model).__name__} fails on the example inputs, and was not compared with its "
            f"graph: {_cite(error)}",
        )
        return
    # Tensors from the export have no values.
    if not all(_is_real(leaf) for leaf in leaves_in(theirs) if isinstance(leaf, Tensor)):
        raise CaptureError(
            f"{type(model).__name__} keeps tensors that it computed during the export, which hold "
            "no values, in a cache that is not in its attributes",
            rule="unseen-cache",
            fix=(
                "empty that cache, fill it before the capture by a call of the model, or use "
                "register_buffer for the tensor"
            ),
        )
    try:
        ours = judge.run(graph, [inputs, inputs])
    except Exception as error:  # of the operators in it
        raise CaptureError(
            f"the captured graph fails on the example inputs, which {type(model).__name__} "
            f"takes: {_cite(error)}",
            rule="graph-fails",
            fix="look for a tensor of the model whose shape changes from call to call",
        ) from error
    if changed:
        judge.require_stateless(inputs, changed)
    difference = _difference(theirs[0], ours[0])
    again = _difference(theirs[1], ours[1])
    if again and (not difference or (_difference(*theirs) and not _difference(*ours))):
        raise CaptureError(
            f"{type(model).__name__} gives a different result when it is called again with the "
            f"same inputs, and its graph does not: {again}. The model depends on state that is "
            "not in its attributes (a counter of a library, an iterator, random numbers of "
            "another library)",
            rule="unseen-state",
            fix="make the state a buffer or an input, or capture with compare=False",
        )
    if difference:
        with restored(model), restored(graph):
            where = _run_seeded(lambda: differing_module(model, graph, *inputs, _TOLERANCE))
        _warn(
            type(model).__name__,
            f"the captured graph and {type(model).__name__} give different results on the "
            f"example inputs: {difference}. {where}",
        )


class _Judge:
    """Calls a model and its graph, each with copies of the inputs.

    Args:
        model: The captured model.
        graph: The captured graph.
    """

    def __init__(self, model: nn.Module, graph: GraphModule) -> None:
        self.model = model
        self.graph = graph
        self._signature = inspect.signature(model.forward)

    def run(self, function: nn.Module, calls: list[Inputs]) -> list[Any]:
        """Return, for each call, the result and the values of the inputs afterwards."""
        if function is self.graph:
            with restored(function):
                return [self._call(function, inputs) for inputs in calls]
        return [self._call(function, inputs) for inputs in calls]

    def require_stateless(self, inputs: Inputs, changed: list[str]) -> None:
        """Refuse a model whose ``changed`` attributes affect the results of later calls."""
        other = map_leaves(_make_other, inputs)
        calls = [inputs, other, inputs, inputs]
        with restored(self.model):
            try:
                theirs, ours = self.run(self.model, calls), self.run(self.graph, calls)
                differs = any(map(_difference, theirs, ours))
            except Exception:  # a second call is impossible, so results depend on state
                differs = True
        if differs:
            raise _stateful(self.model, changed)

    def _call(self, function: nn.Module, inputs: Inputs) -> dict[str, Any]:
        args, kwargs = copy_inputs(*inputs)
        bound = self._signature.bind(*args, **kwargs).arguments
        # A growing cache holds other tensors afterwards: only writes to the given tensors count.
        given = {
            name: leaves_in(value) if is_of_library(value) else value
            for name, value in bound.items()
        }
        with torch.no_grad():
            result = _run_seeded(lambda: function(*args, **kwargs))
        called: dict[str, Any] = map_leaves(_detach, {"output": result, "input": given})
        return called


@contextmanager
def _modes_kept(module: nn.Module) -> Generator[None]:
    modes = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def _set_modes(module: nn.Module, *, training: bool) -> None:
    """Set the modes without calling ``train`` and ``eval``, which the user may have overridden."""
    for each in module.modules():
        each.training = training


def _stateful(model: nn.Module, changed: list[str]) -> CaptureError:
    names = ", ".join(changed[:3])
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return CaptureError(
        f"{type(model).__name__} keeps state in plain attributes, {names}{more}, but a graph "
        "starts each call from the values at capture",
        rule="plain-state",
        site=changed[0],
        fix=(
            "use register_buffer for tensors, and write to them in place (self.h.copy_(...)), or "
            "make the state an input and an output; quantfx.auto(model), for inference, follows "
            "such state"
        ),
    )


def _cite(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _run_seeded(function: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return function()


def _detach(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _make_other(leaf: Any) -> Any:
    """Return other values of the same form, for a call in between."""
    return leaf * 0.5 if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Describe how two calls differ in results or in writes to the inputs; empty if they do not."""
    for place, right in theirs.items():
        told = _value_difference(place, right, ours[place])
        if told:
            return told
    return ""


def _value_difference(place: str, theirs: Any, ours: Any) -> str:
    mine = leaves_in(ours)
    expected = leaves_with_paths(theirs)
    if len(mine) != len(expected):
        return f"{len(mine)} values in its {place}, where the model has {len(expected)}"
    for (path, right), left in zip(expected, mine, strict=True):
        told = _leaf_difference(right, left)
        if told and place == "input":
            return f"what it writes to input{path} {told}"
        if told:
            return f"{place}{path} {told}"
    return ""


def _leaf_difference(right: Any, left: Any) -> str:
    if not isinstance(right, Tensor) or not isinstance(left, Tensor):
        return ""  # the graph has the example's numbers: its input check covers other values
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
    return f"differs in {share:.0%} of its values by more than {bound:.2g}{_rows(far)}"


def _rows(far: Tensor) -> str:
    """Say which rows (vectors along the last dimension) differ, if not all do."""
    rows = far.any(dim=-1) if far.dim() > 1 else far
    places = rows.nonzero().tolist()
    if len(places) == rows.numel():
        return ""
    return f", in {len(places)} of {rows.numel()} rows, the first of them at {places[0]}"


def _is_real(tensor: Tensor) -> bool:
    """Whether a tensor holds values: it is no meta tensor and not of a tracer's class."""
    return not tensor.is_meta and type(tensor) in (Tensor, nn.Parameter)


def _tensors(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    given = [leaf for leaf in leaves_in((args, kwargs)) if isinstance(leaf, Tensor)]
    return [*given, *model.parameters(), *model.buffers()]


def _warn(name: str, message: str) -> None:
    warn(message, rule="capture-differs", site=name, stacklevel=4)

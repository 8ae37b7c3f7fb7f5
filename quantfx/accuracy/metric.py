"""Metrics: the user's function, or how near outputs are to the float model's."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.accuracy.score import (
    Score,
    error_of_folds,
    error_of_share,
    error_without_each,
)
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.model.state import restored
from quantfx.passes.report.sensitivity.evaluate import failure, number_of
from quantfx.passes.report.sensitivity.outputs import errors_of, finite, float_outputs, powers
from quantfx.passes.report.sensitivity.ranking import noise_decibels
from quantfx.patterns.errors import QuantfxError, unknown_name

Called = Callable[..., Any]
"""A model, in float or int8, as a metric calls it."""
Metric = Callable[[Called, Sequence[Any]], float]
"""How good a model is on the user's items; higher is better."""
NamedMetric = Literal["sqnr", "agreement"]

# Parts of the data on which a function is called to find its standard error.
_FOLDS = 8


class Meter(ABC):
    """Scores models on items, and counts calls and seconds.

    Attributes:
        name: Name of the metric.
        exact: The float model's value, if it is the same on all items; None if it must be measured.
        calls: Number of calls of the metric.
        seconds: Time that these calls took.
    """

    def __init__(self, name: str, exact: float | None = None) -> None:
        self.name = name
        self.exact = exact
        self.calls = 0
        self.seconds = 0.0

    def score(self, model: Called, chosen: Sequence[int], told: str, *, folds: bool) -> Score:
        """Return the score of ``model``.

        Args:
            model: What to score; it runs without gradients, and the state that it changes is
                restored.
            chosen: Numbers of the items.
            told: Name of the model, for errors.
            folds: Find the standard error even if this takes more calls.

        Raises:
            QuantfxError: the metric raises, or returns no number.
        """
        start = time.monotonic()
        try:
            with torch.no_grad(), _unchanged(model):
                value, error = self._measure(model, chosen, folds=folds)
        except QuantfxError as reason:
            raise failure(self.name, told, reason) from reason
        finally:
            spent = time.monotonic() - start
            self.seconds += spent
        return Score(value, error, spent)

    @abstractmethod
    def _measure(
        self, model: Called, chosen: Sequence[int], *, folds: bool
    ) -> tuple[float, float | None]:
        """Return the value, and its standard error if known."""


class FunctionMeter(Meter):
    """Calls the user's function once for the value, and once per fold for the standard error.

    Args:
        function: Takes a model and a list of items.
        items: All items.
    """

    def __init__(self, function: Metric, items: Sequence[Any]) -> None:
        super().__init__(getattr(function, "__qualname__", type(function).__qualname__))
        self._function = function
        self._items = items

    def _measure(
        self, model: Called, chosen: Sequence[int], *, folds: bool
    ) -> tuple[float, float | None]:
        value = self._call(model, chosen)
        if not folds:
            return value, None
        count = min(_FOLDS, len(chosen))
        if count < 2:
            return value, None
        try:
            parts = [self._call(model, chosen[i::count]) for i in range(count)]
        except QuantfxError:  # a few items may lack what it needs, such as one of each class
            return value, None
        return value, error_of_folds(parts)

    def _call(self, model: Called, chosen: Sequence[int]) -> float:
        self.calls += 1
        items = [self._items[each] for each in chosen]
        return number_of(lambda: self._function(model, items))


class OutputMeter(Meter):
    """Compares outputs with those of the float model, item by item.

    1. ``sqnr``: signal to noise in dB over all items, each output weighted by its own power
    2. ``agreement``: the share of rows of the first output with the same largest entry

    The standard error is the jackknife's, which needs no more calls. For a share it is at least the
    error by Laplace's rule for so many rows: equal rows do not make a share certain.

    Args:
        name: ``sqnr`` or ``agreement``.
        exact: The float model.
        calls: The model call of each item, by number.

    Raises:
        QuantfxError: the model's outputs cannot be measured.
    """

    def __init__(
        self, name: NamedMetric, exact: Called, calls: Mapping[int, Sequence[Inputs]]
    ) -> None:
        self._is_sqnr = name == "sqnr"
        super().__init__(name, math.inf if self._is_sqnr else 1.0)
        self._calls = calls
        with torch.no_grad(), _unchanged(exact):
            self._exact = {
                item: [float_outputs(exact, call) for call in each] for item, each in calls.items()
            }
        for item, each in self._exact.items():
            for outputs in each:
                self._require_outputs(outputs, item)

    def _measure(
        self, model: Called, chosen: Sequence[int], *, folds: bool
    ) -> tuple[float, float | None]:
        self.calls += 1
        sums = torch.stack([self._of_item(model, each) for each in chosen])
        whole = sums.sum(0)
        value = self._value(whole)
        if math.isnan(value):
            raise QuantfxError("has no value: the float outputs are all 0", rule="metric-fails")
        error = error_without_each([self._value(whole - each) for each in sums])
        if error is not None and not self._is_sqnr:
            error = max(error, error_of_share(*whole[:, 0].tolist()))
        return value, error

    def _of_item(self, model: Called, item: int) -> Tensor:
        """Return an item's sums, ``(2, outputs)``, e.g. noise and signal; these add over items."""
        found = [float_outputs(model, call) for call in self._calls[item]]
        pairs = list(zip(self._exact[item], found, strict=True))
        per_call = _noise_and_signal if self._is_sqnr else _same_and_rows
        return torch.stack([per_call(exact, given) for exact, given in pairs]).sum(0)

    def _require_outputs(self, outputs: Sequence[Tensor], item: int) -> None:
        fix = "give a function"
        if not outputs:
            told = "the model returns no float tensor with values"
        elif any(bool(each.isnan().any()) for each in outputs):
            told, fix = "the model returns NaN", "leave it out"
        elif not self._is_sqnr and outputs[0].shape[-1:] in ((), (1,)):
            told = f"rows of the first output, {tuple(outputs[0].shape)}, have one entry each"
        else:
            return
        message = f"metric '{self.name}' cannot measure batch {item}: {told}"
        raise QuantfxError(message, rule="metric-fails", site=self.name, fix=fix)

    def _value(self, sums: Tensor) -> float:
        part, whole = sums
        heard = whole > 0
        if not bool(heard.any()):
            return math.nan
        share = float((part[heard] / whole[heard]).mean())
        return noise_decibels(max(share, 0.0)) if self._is_sqnr else share


def meter_of(
    metric: Metric | NamedMetric,
    items: Sequence[Any],
    exact: Called,
    calls: Callable[[], Mapping[int, Sequence[Inputs]]],
) -> Meter:
    """Return the meter of ``metric``.

    Args:
        metric: A function, or the name of a metric that needs no labels.
        items: The user's items.
        exact: The float model.
        calls: Returns the model call of each item, by number.

    Raises:
        QuantfxError: there is no metric of that name, or it cannot measure the model.
    """
    if callable(metric):
        return FunctionMeter(metric, items)
    if metric not in get_args(NamedMetric):
        raise unknown_name(QuantfxError, "metric", metric, get_args(NamedMetric))
    return OutputMeter(metric, exact, calls())


def _unchanged(model: Called) -> AbstractContextManager[object]:
    if isinstance(model, GraphModule):
        return preserved_state(model)
    return restored(model) if isinstance(model, nn.Module) else nullcontext()


def _noise_and_signal(exact: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    errors, heard = errors_of(exact, found), finite(exact)
    return torch.stack([powers(errors, 1)[:, 0], powers(heard, 1)[:, 0]])


def _same_and_rows(exact: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    same = (exact[0].argmax(-1) == found[0].argmax(-1)).double().reshape(-1)
    return torch.tensor([[float(same.sum())], [float(len(same))]], dtype=torch.float64)

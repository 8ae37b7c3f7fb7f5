"""Metrics of users and those by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx.accuracy.metric import FunctionMeter, OutputMeter, meter_of
from quantfx.passes.inputs.leaves import Inputs
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement
from tests.refusals import refused
from tests.unchecked import capture

ITEMS = list(torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0)))
CALLS: dict[int, list[Inputs]] = {i: [((item,), {})] for i, item in enumerate(ITEMS)}


def exact(x: Tensor) -> Tensor:
    return x * 2


def rough(x: Tensor) -> Tensor:
    return (x * 2 * 2).round() / 2


@pytest.mark.parametrize(("name", "measure"), [("sqnr", sqnr_db), ("agreement", top1_agreement)])
def test_outputs_are_held_against_the_float_model(
    name: Any, measure: Callable[[Tensor, Tensor], float]
) -> None:
    meter = OutputMeter(name, exact, CALLS)
    score = meter.score(rough, range(6), "r", folds=False)
    given = torch.cat(ITEMS)
    assert score.value == pytest.approx(measure(exact(given), rough(given)))
    assert score.error
    assert meter.calls == 1
    assert meter.score(rough, [2], "r", folds=False).error is None


def test_a_function_is_called_once_and_for_each_fold_if_asked() -> None:
    lengths: list[int] = []

    def mean(model: Callable[..., Any], items: Sequence[Any]) -> float:
        lengths.append(len(items))
        assert not torch.is_grad_enabled()
        return float(torch.stack([model(each).mean() for each in items]).mean())

    meter = FunctionMeter(mean, ITEMS)
    plain = meter.score(exact, range(6), "r", folds=False)
    assert (lengths, plain.error) == ([6], None)
    folds = meter.score(exact, range(6), "r", folds=True)
    assert lengths == [6, 6, *[1] * 6]
    means = torch.stack([exact(each).mean() for each in ITEMS])
    assert folds.value == pytest.approx(float(means.mean()))
    assert folds.error == pytest.approx(float(means.std()) / 6**0.5, rel=1e-5)
    assert meter.calls == 8


def test_a_metric_that_raises_or_is_nan_names_the_recipe() -> None:
    def broken(model: Callable[..., Any], items: Sequence[Any]) -> float:
        raise KeyError("labels")

    with refused("metric-fails", site="repair=True", says="KeyError.*labels"):
        FunctionMeter(broken, ITEMS).score(exact, [0], "repair=True", folds=False)
    with refused("metric-fails", site="plain", says="NaN"):
        FunctionMeter(lambda _, __: float("nan"), ITEMS).score(exact, [0], "plain", folds=False)


@pytest.mark.parametrize("value", [None, "high", [1.0, 2.0], torch.ones(2), 1j])
def test_a_metric_that_returns_no_number_is_refused(value: Any) -> None:
    with refused("metric-fails", site="plain", says="raises", fix="by itself"):
        FunctionMeter(lambda _, __: value, ITEMS).score(exact, [0], "plain", folds=False)


@pytest.mark.parametrize("value", [True, torch.ones(1, 1), torch.tensor(1, dtype=torch.int8)])
def test_what_is_a_number_counts(value: Any) -> None:
    score = FunctionMeter(lambda _, __: value, ITEMS).score(exact, [0], "plain", folds=False)
    assert score.value == 1.0


@pytest.mark.parametrize("fold", ["raises", "nan", "inf"])
def test_folds_without_a_number_tell_no_error(fold: str) -> None:
    def needs_all(model: Callable[..., Any], items: Sequence[Any]) -> float:
        if len(items) < len(ITEMS) and fold == "raises":
            raise ValueError("only one class present")
        return 1.0 if len(items) == len(ITEMS) else float(fold)

    score = FunctionMeter(needs_all, ITEMS).score(exact, range(6), "plain", folds=True)
    assert (score.value, score.error) == (1.0, None)


def test_only_the_users_function_is_said_to_raise() -> None:
    meter = OutputMeter("sqnr", exact, CALLS)

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("a kernel failed")

    with pytest.raises(RuntimeError, match="a kernel failed"):
        meter.score(broken, [0], "plain", folds=False)


@pytest.mark.parametrize(
    ("name", "model", "says"),
    [
        ("agreement", lambda x: x[:, :1], "one entry"),
        ("agreement", lambda x: x.sum(), "one entry"),
        ("agreement", lambda x: x.argmax(1), "no float"),
        ("sqnr", lambda x: x.argmax(1), "no float"),
        ("sqnr", lambda x: x[:0], "no float"),
        ("sqnr", lambda x: x.log(), "cannot measure batch 0: the model returns NaN"),
    ],
)
def test_outputs_of_which_a_metric_tells_nothing_are_refused(
    name: Any, model: Callable[..., Any], says: str
) -> None:
    with refused("metric-fails", site=name, says=says):
        OutputMeter(name, model, CALLS)


def test_what_is_not_finite_is_neither_signal_nor_exact() -> None:
    def masked(x: Tensor) -> Tensor:
        return x.masked_fill(x > 1, -torch.inf)

    def spoilt(x: Tensor) -> Tensor:
        return masked(x).masked_fill(x < -1, torch.nan)

    meter = OutputMeter("sqnr", masked, CALLS)
    assert meter.score(masked, range(6), "r", folds=False).value == math.inf
    assert meter.score(spoilt, range(6), "r", folds=False).value == -math.inf
    near = meter.score(lambda x: masked(x) * 1.01, range(6), "r", folds=False)
    assert near.value == pytest.approx(40, abs=0.01)


def test_a_model_may_write_to_its_inputs() -> None:
    before = [item.clone() for item in ITEMS]
    meter = OutputMeter("sqnr", lambda x: x.mul_(2), CALLS)
    assert meter.score(exact, range(6), "r", folds=False).value == math.inf
    assert all(map(torch.equal, ITEMS, before))


class Counting(nn.Module):
    """A model whose results depend on how often it was called."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Count."""
        self.count.add_(1)
        return x * self.count


@pytest.mark.parametrize("form", ["module", "graph"])
def test_what_calls_change_in_a_model_is_put_back(form: str) -> None:
    model: nn.Module = Counting()
    if form == "graph":
        model = capture(model.eval(), (ITEMS[0],))
    [count] = model.buffers()
    meter = OutputMeter("sqnr", model, CALLS)
    assert int(count) == 0
    assert meter.score(model, range(6), "r", folds=False).value == math.inf
    assert int(count) == 0


def test_outputs_that_are_all_zero_tell_nothing() -> None:
    meter = OutputMeter("sqnr", lambda x: x * 0, CALLS)
    with refused("metric-fails", site="plain", says="all 0"):
        meter.score(rough, range(6), "plain", folds=False)
    first = OutputMeter("sqnr", lambda x: x * float(torch.equal(x, ITEMS[0])), CALLS)
    score = first.score(lambda x: x * 1.01, [0, 0], "plain", folds=False)
    assert score.value == pytest.approx(40, abs=0.01)
    assert first.score(lambda x: x * 0, [0, 1], "plain", folds=False).error is None


def test_an_unknown_name_is_refused() -> None:
    name: Any = "sqnrs"
    with refused("unknown-name", site="sqnrs", says="sqnr"):
        meter_of(name, ITEMS, exact, lambda: CALLS)

"""``quantfx.quantize_to`` on networks that run: the goal is met, or it says that it is not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import quantfx
from quantfx import backends
from quantfx.passes.errors import ArgumentError, CalibrationError, FileError
from quantfx.passes.report.sensitivity.estimate import estimate_sensitivity
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.sensitivity import Sensitivity
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.digits import DigitsRun
from tests.refusals import refused, warned
from tests.two_processes import run_two

X86 = backends.get("x86", target="avx2", kernels="onednn")


class Net(nn.Module):
    """A convolution whose few outputs all follows from, one that hardly matters, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores."""
        x = self.second(self.first(x).relu()).relu()
        scores: Tensor = self.last(x.mean((2, 3)))
        return scores


@cache
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


ITEMS = list(torch.randn(24, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
EXAMPLE = (ITEMS[0],)


def quantize_to(items: Sequence[Any] = ITEMS, **options: Any) -> quantfx.Tuned:
    given: dict[str, Any] = {"metric": "sqnr", "backend": X86, "progress": False}
    return quantfx.quantize_to(net(), EXAMPLE, items, **(given | options))


@cache
def mixed() -> quantfx.Tuned:
    """Return what meets a goal that no whole recipe meets, which takes a second."""
    return quantize_to(at_least=54.0)


def test_the_goal_is_met_at_less_cost_than_float() -> None:
    found = mixed()
    assert found.met, found.text()
    assert found.evidence.judged.value >= 54
    assert 0 < found.float_share < 1
    assert max(value for _, value, recipe in found.front if ":" not in recipe) < 54
    costs = [cost for cost, _, _ in found.front]
    assert costs == sorted(costs)
    with torch.no_grad():
        given = torch.cat([found.result.module(each) for each in ITEMS])
        assert sqnr_db(torch.cat([net()(each) for each in ITEMS]), given) > 54
    assert "sqnr >= 54: met" in found.text()
    assert json.loads(found.to_json())["recipe"] == found.candidate.text


def test_toml_makes_the_result_again_without_a_search() -> None:
    found = mixed()
    assert found.config.call_rules
    again = quantfx.quantize(
        net(),
        EXAMPLE,
        statistics=found.statistics,
        backend=backends.get("x86", target="avx2", kernels="onednn", **found.backend),
        config=quantfx.Config.from_toml(found.config.to_toml()),
    )
    assert again.backend.prepare_pipeline == found.result.backend.prepare_pipeline
    assert again.backend.convert_pipeline == found.result.backend.convert_pipeline
    for x in ITEMS:
        assert torch.equal(again.quantized(x), found.result.quantized(x))
        assert torch.equal(again.module(x), found.result.module(x))


@pytest.mark.sweep  # so do two processes, below
def test_equal_seeds_find_equal_recipes() -> None:
    again = quantize_to(at_least=54.0)
    found = mixed()
    assert again.config == found.config
    assert again.front == found.front
    assert [(t.candidate, t.part, t.score.value) for t in again.trials] == [
        (t.candidate, t.part, t.score.value) for t in found.trials
    ]


def accuracy(model: Callable[..., Tensor], items: Sequence[tuple[Tensor, Tensor]]) -> float:
    images, labels = (torch.cat(each) for each in zip(*items, strict=True))
    return float((model(images).argmax(1) == labels).float().mean())


def test_the_digits_are_as_right_as_is_asked_with_every_site_int8(digits: DigitsRun) -> None:
    pairs = zip(
        *(torch.split(each, 8) for each in (digits.train_images, digits.train_labels)), strict=True
    )
    found = quantfx.quantize_to(
        digits.model,
        (digits.train_images[:8],),
        list(pairs)[:64],
        metric=accuracy,
        at_least=0.96,
        backend=X86,
        input_fn=lambda item: item[0],
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        progress=False,
    )
    assert found.met
    assert found.candidate.text == "plain"
    assert found.evidence.metric == "accuracy"
    # The float model; the recipe and eight folds; the same of the answer, on what judges.
    assert found.evidence.calls == 1 + 9 + 9
    with torch.no_grad():
        assert digits.accuracy(found.result.module) >= 0.96


def test_no_time_is_enough_for_an_answer() -> None:
    found = quantize_to(at_least=500.0, time_limit=0.0)
    assert [(t.part, t.candidate.text) for t in found.trials] == [
        ("choose", "plain"),
        ("judge", "plain"),
    ]
    assert not found.met
    assert "no recipe" in found.why_not
    assert found.why_not in found.text()
    assert found.result.module(ITEMS[0]).shape == (16, 5)


def test_a_metric_that_raises_for_a_recipe_loses_that_one_only() -> None:
    calls: list[int] = []

    def moody(model: Callable[..., Tensor], items: Sequence[Tensor]) -> float:
        calls.append(len(items))
        if len(calls) == 2:  # behind the float model
            raise ZeroDivisionError("once")
        return float(len(calls))

    found = quantize_to(metric=moody, at_least=2.0)
    lost = [t for t in found.trials if t.score.failure]
    assert [t.candidate.text for t in lost] == ["plain"]
    assert "ZeroDivisionError" in lost[0].score.failure
    assert found.met is False or found.candidate.text != "plain"
    assert "lost: " in found.text()


def test_a_metric_that_raises_for_the_float_model_is_refused() -> None:
    def broken(model: Callable[..., Tensor], items: Sequence[Tensor]) -> float:
        raise KeyError("labels")

    with refused("metric-fails", site="the float model", says="KeyError"):
        quantize_to(metric=broken, at_least=2.0)


def test_a_search_goes_on_where_it_ended_and_measures_nothing_twice(tmp_path: Path) -> None:
    calls: list[int] = []

    def sqnr(model: Callable[..., Tensor], items: Sequence[Tensor]) -> float:
        calls.append(len(items))
        exact, given = (torch.cat([each(x) for x in items]) for each in (net(), model))
        return min(sqnr_db(exact, given), 200.0)

    file = tmp_path / "trials.json"
    whole = quantize_to(metric=sqnr, at_least=54.0, resume=file)
    assert whole.met
    calls.clear()  # what a metric closes over is of the metric: it has to be as it was
    again = quantize_to(metric=sqnr, at_least=54.0, resume=file)
    assert not calls
    assert again.config == whole.config
    assert again.evidence.calls == 0
    calls.append(1)
    with refused("other-trials", FileError, site="trials.json", says="another metric"):
        quantize_to(metric=sqnr, at_least=54.0, resume=file)
    calls.clear()
    with refused("other-trials", FileError, site="trials.json", says="seed"):
        quantize_to(metric=sqnr, at_least=54.0, resume=file, seed=1)
    with refused("other-trials", FileError, says="other data"):
        quantize_to(ITEMS[:8], metric=sqnr, at_least=54.0, resume=file)


def test_trials_of_the_same_backend_with_other_passes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "trials.json"
    quantize_to(at_least=10.0, resume=file)
    for option in ({"repair": True}, {"smooth": 0.5}):
        backend = backends.get("x86", target="avx2", kernels="onednn", **option)
        with refused("other-trials", FileError, site="trials.json", says="another backend"):
            quantize_to(at_least=10.0, resume=file, backend=backend)


@pytest.mark.parametrize("place", range(6))
def test_an_item_that_does_not_fit_is_named_by_its_number(place: int) -> None:
    items = [*ITEMS[:6]]
    items[place] = torch.zeros(16, 4, 8, 8)
    with refused("input-shape", CalibrationError, says=f"batch {place}:"):
        quantize_to(items, at_least=10.0)


class Answers(nn.Module):
    """A model without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest of the scores."""
        return self.net(x).argmax(1)


def test_a_model_without_gradients_gets_its_cheapest_sites_first() -> None:
    model = Answers().eval()

    def same(given: Callable[..., Tensor], items: Sequence[Tensor]) -> float:
        return float(torch.cat([given(x) == model(x) for x in items]).float().mean())

    with warned("no-gradients", says="order of sites"):
        found = quantfx.quantize_to(
            model, EXAMPLE, ITEMS, metric=same, size=1500, backend=X86, progress=False
        )
    assert found.met
    assert any(each.candidate.modes for each in found.trials)


@pytest.mark.parametrize("count", [1, 5])
def test_few_items_are_thin_evidence(count: int) -> None:
    found = quantize_to(ITEMS[:count], at_least=10.0, time_limit=0.0)
    assert any(f"{count} items" in each for each in found.evidence.thin)
    assert "thin evidence" in found.text()
    assert mixed().evidence.thin == ()


def test_an_error_larger_than_the_distance_is_thin_evidence() -> None:
    def noisy(model: Callable[..., Tensor], items: Sequence[Tensor]) -> float:
        return float(torch.cat(list(items)).mean())  # the same for each model

    mean = float(torch.cat(ITEMS).mean())
    found = quantize_to(metric=noisy, at_least=mean - 0.05, time_limit=0.0)
    thin = [each for each in found.evidence.thin if "standard error" in each]
    error = found.evidence.chosen.error
    assert error is not None
    assert bool(thin) == (error > found.evidence.exact.value - mean + 0.05 >= 0)


def test_a_budget_of_bytes_is_kept() -> None:
    least = mixed().trials[0].price
    found = quantize_to(size=int(least.size * 1.5), metric="agreement")
    assert found.met
    assert found.goal.size is not None
    chosen = next(t for t in found.trials if t.candidate == found.candidate)
    assert chosen.price.size <= found.goal.size
    assert any(t.candidate.modes for t in found.trials)


def test_what_makes_no_sense_is_refused() -> None:
    with refused("no-goal", ArgumentError):
        quantize_to()
    with refused("no-batches", CalibrationError, site="batches"):
        quantize_to([], at_least=1.0)
    with refused("unknown-name", site="snr"):
        quantize_to(metric="snr", at_least=1.0)
    with refused("unknown-name", ArgumentError, site="time_limits", says="did you mean"):
        quantize_to(at_least=1.0, time_limits=5)
    with refused("number-range", ArgumentError, site="time_limit"):
        quantize_to(at_least=1.0, time_limit=-1.0)
    wrong: list[dict[str, Any]] = [{"time_limit": None}, {"seed": 1.5}, {"seed": 2**70}]
    for given in wrong:
        with refused("number-range", ArgumentError, site=next(iter(given)), fix="give"):
            quantize_to(at_least=1.0, **given)


@pytest.mark.parametrize("resume", [pytest.param(False, marks=pytest.mark.sweep), True])
def test_each_item_is_made_a_batch_once(resume: bool, tmp_path: Path) -> None:
    made: list[int] = []

    def batch(item: int) -> Tensor:
        made.append(item)
        return ITEMS[item]

    given = {"resume": tmp_path / "trials.json"} if resume else {}
    quantize_to(range(len(ITEMS)), input_fn=batch, at_least=54.0, **given)
    assert sorted(made) == list(range(len(ITEMS)))


def test_the_backend_of_the_result_makes_it_again() -> None:
    found = mixed()
    again = quantfx.quantize(
        net(), EXAMPLE, statistics=found.statistics, backend=found.result.backend
    )
    assert torch.equal(again.module(ITEMS[0]), found.result.module(ITEMS[0]))


@pytest.mark.parametrize(
    ("time_limit", "read"), [(3000.0, 2), pytest.param(1e6, 4, marks=pytest.mark.sweep)]
)
def test_the_estimate_ends_with_half_of_the_time_or_when_more_rows_hardly_tell(
    time_limit: float, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent, calls = [0.0], list[int]()

    def slow(paired: PairedGraphs, batches: Iterable[Any], **rest: Any) -> Sensitivity:
        found: list[Any] = []
        for each in batches:
            found.append(each)
            spent[0] += 1000.0
        calls.append(len(found))
        return estimate_sensitivity(paired, found, **rest)

    real = time.monotonic
    clock = SimpleNamespace(monotonic=lambda: real() + spent[0])
    monkeypatch.setattr("quantfx.search_recipe.time", clock)
    monkeypatch.setattr("quantfx.candidate_results.estimate_sensitivity", slow)
    assert quantize_to(at_least=54.0, time_limit=time_limit).met
    assert calls == [read]


def work(rank: int, folder: str) -> None:
    found = quantize_to(at_least=54.0, group=distributed.group.WORLD)
    trials = [(t.candidate.text, t.score.value) for t in found.trials]
    told: dict[str, Any] = {"recipe": found.candidate.text, "met": found.met, "trials": trials}
    told["calls"] = found.evidence.calls
    (Path(folder) / f"{rank}.json").write_text(json.dumps(told))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_processes_share_the_trials_and_find_the_same(tmp_path: Path) -> None:
    run_two(work, str(tmp_path))
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["trials"] == other["trials"]
    assert one["met"]
    assert one["recipe"] == mixed().candidate.text
    assert other["calls"], "the second process tries recipes as well"

"""A region that is slower than torch's operators is theirs; where float is faster it is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from quantfx import Result, backends
from quantfx.backends.direct import form_regions, tune_routes, tuned
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.tune import tune
from quantfx.backends.direct.tuned import RouteTimes, remember, routes_for, tuning_file
from quantfx.backends.x86 import Kernels
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, add_weight, make_graph, round_trip
from tests.backends.direct.test_form_regions import Around
from tests.models.small import residual_block
from tests.refusals import refused

SECONDS = 0.5


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tuned, "cache_folder", lambda: tmp_path)
    tuned._known.cache_clear()


def image() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def quantized(kernels: Kernels = "auto") -> Result:
    x = image()
    backend = backends.get("x86", kernels=kernels)
    return unchecked.quantize(
        residual_block(), (x,), calibration=[x], backend=backend, progress=False
    )


def measured(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Let all routes run once, and then take made-up times."""

    def race(runs: Mapping[str, Any], until: float, clock: object) -> dict[str, float]:
        found = [run() for run in runs.values()]
        assert all(each[0].shape == found[0][0].shape for each in found)
        return {name: seconds[name] for name in runs}

    monkeypatch.setattr(tune_routes, "race", race)


def regions(module: torch.nn.Module) -> int:
    return sum(isinstance(each, Region) for each in module.modules())


def reasons(result: Result) -> set[str]:
    return {each.reason for each in result.report.sites}


def test_a_region_that_is_the_fastest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=1.0, operators=1.2, floats=1.1)
    result = quantized()
    report = result.tune(seconds=SECONDS)
    assert (report.moved, report.slower_than_float) == ((), ())
    assert "int8 is nowhere slower than float" in str(report)
    assert regions(result.module) == 1
    assert reasons(result) == {""}
    (times,) = routes_for(torch.get_num_threads()).values()
    assert times == RouteTimes("conv2d to conv2d_1", 1e6, 1.2e6, 1.1e6)


def test_a_region_that_loses_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=2.0, operators=1.0, floats=1.5)
    result = quantized()
    before = result.module(image())
    report = result.tune(seconds=SECONDS)
    assert [each.name for each in report.moved] == ["conv2d to conv2d_1"]
    assert report.slower_than_float == ()
    assert regions(result.module) == 0
    assert any("qconv" in str(node.target) for node in result.module.graph.nodes)
    assert (result.module(image()) - before).abs().max() < 0.1
    assert "torch's int8 operators are 2.00 times as fast as its region" in str(reasons(result))
    again = quantized()  # what was measured holds for all that is made here
    assert regions(again.module) == 0
    assert regions(quantized("direct").module) == 1  # but for those who ask for plans


def test_what_loses_by_little_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=1.0, operators=0.97, floats=3.0)
    result = quantized()
    assert result.tune(seconds=SECONDS).moved == ()
    assert regions(result.module) == 1


@pytest.mark.parametrize("operators", [3.0, 1.0])
def test_where_float_is_faster_int8_stays_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, operators: float
) -> None:
    measured(monkeypatch, plan=2.0, operators=operators, floats=0.5)
    result = quantized()
    report = result.tune(seconds=SECONDS)
    factor = f"{min(2.0, operators) / 0.5:.2f}"
    said = f"conv2d to conv2d_1: float operators are {factor} times as fast as int8"
    assert said in str(report)
    assert "nowhere" not in str(report)
    assert regions(result.module) == int(operators > 2)
    assert all(f"float operators are {factor} times as fast" in each for each in reasons(result))
    assert all(each.status == "kernel" for each in result.report.sites)
    assert '"floats": 500000.0' in tuning_file().read_text()


def test_who_asked_for_plans_has_no_other_route(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=2.0, floats=0.5)
    result = quantized("direct")
    (times,) = result.tune(seconds=SECONDS).regions
    assert (times.operators, times.loses, times.float_gain) == (None, False, 4.0)
    assert regions(result.module) == 1
    assert routes_for(torch.get_num_threads()) != {}
    assert "float operators are 4.00 times as fast" in str(reasons(result))


def test_plans_alone_keep_what_was_measured_of_torchs_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(monkeypatch, plan=2.0, operators=1.0, floats=1.5)
    quantized().tune(seconds=SECONDS)
    measured(monkeypatch, plan=1.9, floats=1.4)
    report = quantized("direct").tune(seconds=SECONDS)
    assert report.moved == ()  # nobody asked
    (times,) = routes_for(torch.get_num_threads()).values()
    assert times == RouteTimes("conv2d to conv2d_1", 1.9e6, 1.0e6, 1.4e6)
    assert regions(quantized().module) == 0


def test_plans_that_were_measured_alone_must_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_regions, "_pays", lambda members, made: False)
    measured(monkeypatch, plan=1.0, operators=1.0, floats=3.0)
    quantized("direct").tune(seconds=SECONDS)
    assert regions(quantized().module) == 0
    (key,) = routes_for(torch.get_num_threads())
    remember(torch.get_num_threads(), {key: RouteTimes("", 1.0, 1.0, 3.0)})
    assert regions(quantized().module) == 1


def test_float_that_wins_by_little_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=1.0, operators=1.2, floats=0.97)
    result = quantized()
    assert result.tune(seconds=SECONDS).slower_than_float == ()
    assert reasons(result) == {""}
    assert reasons(quantized()) == {""}


def test_a_route_that_fails_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr(tune_routes, "float_graph", lambda graph, layouts: fails)
    with refused("graph-fails", site="conv2d to conv2d_1", says="broken"):
        quantized().tune(seconds=SECONDS)


def test_a_region_that_quantizes_bfloat16_is_measured() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 4, 8)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.linear.default(round_trip(inputs[0], draw.qparams()), model.weight("w"), None)]

    region, x = Region(make_graph(draw, 1, build)), torch.randn(3, 8).to(torch.bfloat16)
    assert len(tune(region, x, seconds=SECONDS).regions) == 1


def test_times_are_found_where_a_region_gets_another_layout_than_was_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(monkeypatch, plan=2.0, floats=0.5)
    torch.manual_seed(0)  # what erfinv reads is in its domain
    x = torch.rand(2, 3, 9, 9).to(memory_format=torch.channels_last)
    model: Any = Around(torch.erfinv).eval()
    model = model.to(memory_format=torch.channels_last)
    backend = backends.get("x86", kernels="direct")
    result = unchecked.quantize(model, (x,), backend=backend, progress=False)
    assert len(result.tune(seconds=SECONDS).slower_than_float) == 2
    assert all("float operators are 4.00 times" in each for each in reasons(result))


def test_compile_takes_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, plan=2.0, operators=1.0, floats=1.5)
    result = quantized()
    monkeypatch.setattr("quantfx.backends.direct.tune._Tuning.run", lambda self: ([], 1.0))
    compiled = result.compile(tune=True)
    assert "direct" not in str([each.compiled for each in result.report.sites])
    assert torch.allclose(compiled(image()), result.module(image()), atol=0.1)


def test_choices_and_times_are_in_one_file() -> None:
    times = RouteTimes("a", 1.0, None, 2.0)
    remember(1, {"step": tuned.Choice(1, 0)})
    remember(1, {"region 0": times})
    assert tuned.choices_for(1) == {"step": tuned.Choice(1, 0)}
    assert routes_for(1) == {"region 0": times}


def test_a_real_run_measures_all_routes() -> None:
    result = quantized()
    (times,) = result.tune(seconds=SECONDS).regions
    assert times.operators is not None
    assert min(times.plan, times.operators, times.floats) > 1  # microseconds
    assert regions(result.module) == int(not times.loses)

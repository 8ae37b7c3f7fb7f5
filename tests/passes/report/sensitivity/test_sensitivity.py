"""What a sensitivity says: rankings, predictions, evaluation, and its forms."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Result, Sensitivity, backends
from quantfx.passes.errors import ArgumentError, CalibrationError, FileError
from quantfx.passes.graph.clone import clone
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.qdq import tensor_qparams
from quantfx.passes.report.sensitivity.ranking import Whole, noise_decibels
from quantfx.passes.report.sensitivity.sensitivity import SensitiveSite
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.unchecked import quantize

X86 = backends.get("x86", target="avx2", kernels="onednn")


class Net(nn.Module):
    """Three linears, two of them in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.head = nn.ModuleDict({"one": nn.Linear(32, 32), "two": nn.Linear(32, 8)})

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.head["two"](self.head["one"](self.body(x)).relu())


def rows(seed: int = 0) -> Tensor:
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return seeded(Net)


@pytest.fixture(scope="module")
def result(net: nn.Module) -> Result:
    return quantize(net, (rows(),), calibration=[rows()], backend=X86)


def by_hand(whole: Whole | None = None) -> Sensitivity:
    """Return two sites whose errors cancel in half of the rows, and one that is small."""
    columns = torch.tensor([[2.0, -2.0, 0.1], [2.0, 2.0, 0.1]], dtype=torch.float64) / 10
    sites = tuple(
        SensitiveSite(Site("", name), "linear", module, "static", macs=10, weight_bytes=4)
        for name, module in (("a", "m"), ("b", "m"), ("c", "n"))
    )
    return Sensitivity(sites, columns, calls=1, draws=1, unit="row", whole=whole)


def test_costs_wins_and_predictions_are_means_over_rows() -> None:
    found = by_hand()
    a, b, c = found.ranked("graph")
    assert (a.cost, b.cost, c.cost) == pytest.approx((0.04, 0.04, 0.0001))
    assert found.predict() == pytest.approx((0.01**2 + 0.41**2) / 2)
    assert found.predict(["b"]) == pytest.approx(0.21**2)
    assert found.predict(["a", Site("", "b"), "c"]) == 0
    assert b.win == pytest.approx(found.predict() - found.predict(["b"]))
    assert a.sqnr == pytest.approx(-10 * math.log10(0.04))
    assert [row.name for row in found.ranked("win")] == ["a", "b", "c"]


def test_a_module_is_its_sites_together() -> None:
    both, other = by_hand().ranked("graph", by="module")
    assert (both.name, both.sites, both.macs, both.weight_bytes) == ("m", ("a", "b"), 20, 8)
    assert both.cost == pytest.approx((0.0**2 + 0.4**2) / 2)
    assert other.sites == ("c",)
    assert by_hand().at("m", by="module") == both


def test_predictions_start_from_the_measured_noise_where_it_is_known() -> None:
    found = by_hand(Whole(0.09, (0.05, 0.03, 0.01)))
    assert found.predict() == 0.09
    assert found.predict(["c"]) == pytest.approx(0.09 - 2 * 0.01 + 0.01**2)
    assert found.at("a").win == pytest.approx(2 * 0.05 - 0.04)


def test_unknown_names_are_refused() -> None:
    with refused("unknown-name", site="d"):
        by_hand().predict(["d"])
    with refused("unknown-name", site="x"):
        by_hand().at("x", by="module")


def test_forms(tmp_path: Path) -> None:
    found = by_hand(Whole(0.09, (0.05, 0.03, 0.01)))
    data = json.loads(found.to_json())
    assert data["contributions"] == found.contributions.tolist()
    assert [site["name"] for site in data["sites"]] == ["a", "b", "c"]
    assert "contributions" not in json.loads(found.to_json(contributions=False))
    assert list(found.heat()) == ["a", "b", "c"]
    assert found.heat()["c"] == pytest.approx(40)
    assert "10.5 dB measured" in str(found)
    assert "over 2 rows" in str(found)
    drawn = ElementTree.fromstring(found.chart(tmp_path / "bars.svg", most=2).read_text())
    bars = [each for each in drawn.iter() if each.get("class") in ("cost", "win")]
    assert len(bars) == 4
    assert float(bars[0].get("width", 0)) > 0


def test_a_spoiled_scale_comes_first(net: nn.Module, result: Result) -> None:
    before = result.sensitivity([rows(1)], net)
    spoiled = clone(result.quantized)
    node = next(each for each in spoiled.graph.nodes if each.name == "linear_1")
    dequantize = read_slot(node, "input")
    for each in (dequantize, dequantize.all_input_nodes[0]):
        source, _, *rest = each.args
        each.args = (source, tensor_qparams(each).scale / 8, *rest)
    spoiled.recompile()
    broken = Result(
        spoiled, lowering=None, report=result.report, backend=X86, inputs=result._inputs
    )
    after = broken.sensitivity([rows(1)], net)
    assert after.ranked()[0].name == "linear_1"
    assert after.at("linear_1").cost > 20 * before.at("linear_1").cost
    assert after.at("linear").cost == before.at("linear").cost


def test_evaluation_is_that_of_the_graphs(net: nn.Module, result: Result) -> None:
    found = result.sensitivity([rows(1)], net, evaluate=2, whole=True)
    compared = result.compare([rows(1)], model=net).output
    assert compared is not None
    assert found.evaluation is not None
    assert found.evaluation.exact == math.inf
    assert found.evaluation.rounded == pytest.approx(compared.sqnr, abs=1e-3)
    assert found.whole is not None
    assert found.predict() == pytest.approx(10 ** (-compared.sqnr / 10), rel=1e-3)
    assert sum(found.whole.shares) == pytest.approx(found.whole.noise, rel=0.3)
    best, *rest = found.ranked()
    assert best.measured is not None
    assert best.measured.alone == pytest.approx(best.sqnr, abs=2)
    assert best.measured.without > found.evaluation.rounded
    assert rest[-1].measured is None
    assert "measured alone" in str(found)


def test_a_metric_of_the_user_is_asked_for_the_worst_sites(net: nn.Module) -> None:
    x = rows(1)
    with torch.no_grad():
        labels = net(x).argmax(1)

    def agreement(model: nn.Module) -> float:
        return float((model(x).argmax(1) == labels).double().mean())

    found = quantfx.sensitivity(
        net, (rows(),), [x], calibration=[rows()], backend=X86, metric=agreement, evaluate=1
    )
    assert found.evaluation is not None
    assert (found.evaluation.metric, found.evaluation.exact) == ("agreement", 1.0)
    assert found.evaluation.rounded > 0.5
    assert sum(row.measured is not None for row in found.ranked()) == 1


def test_the_same_seed_gives_the_same_and_the_model_may_be_gone(
    net: nn.Module, result: Result
) -> None:
    first, again, other = (result.sensitivity([rows(1)], net, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.contributions, again.contributions)
    assert not torch.equal(first.contributions, other.contributions)
    gone = quantize(seeded(Net), (rows(),), calibration=[rows()], backend=X86)
    gc.collect()  # what holds the model are circles
    with refused("no-float-model", fix="result.sensitivity"):
        gone.sensitivity([rows(1)])


def test_options_out_of_range_and_no_data_are_refused(net: nn.Module, result: Result) -> None:
    with refused("number-range", site="draws"):
        result.sensitivity([rows()], net, draws=0)
    with refused("number-range", site="evaluate"):
        result.sensitivity([rows()], net, evaluate=-1)
    with refused("no-batches"):
        result.sensitivity([], net)


def test_unknown_options_and_orders_are_refused_with_the_nearest(
    net: nn.Module, result: Result
) -> None:
    given: dict[str, Any] = {"evalute": 2}
    with refused("unknown-name", ArgumentError, site="evalute", says="did you mean 'evaluate'"):
        result.sensitivity([rows()], net, **given)
    with refused("unknown-name", ArgumentError, site="evalute", says="did you mean 'evaluate'"):
        quantfx.sensitivity(net, (rows(),), [rows()], backend=X86, **given)
    found, wrong = by_hand(), cast(Any, "modules")
    with refused("unknown-name", ArgumentError, site="noise", fix="'win'"):
        found.ranked(cast(Any, "noise"))
    asked: list[Callable[[], object]] = [
        lambda: found.ranked(by=wrong),
        lambda: found.table(by=wrong),
        lambda: found.at("a", by=wrong),
    ]
    for ask in asked:
        with refused("unknown-name", ArgumentError, site=wrong, says="did you mean 'module'"):
            ask()


@pytest.mark.parametrize(
    ("value", "says"), [(None, "TypeError"), ("x", "ValueError"), (math.nan, "NaN")]
)
def test_a_metric_that_returns_no_number_names_what_it_was_asked(
    value: Any, says: str, net: nn.Module, result: Result
) -> None:
    def mean(model: nn.Module) -> Any:
        return value

    with refused("metric-fails", site="the float model", says=f"metric mean.*{says}"):
        result.sensitivity([rows()], net, metric=mean, evaluate=1)


def test_a_metric_needs_sites_to_try(net: nn.Module, result: Result) -> None:
    with refused("option-value", site="metric", fix="evaluate"):
        result.sensitivity([rows()], net, metric=lambda model: 1.0)


def test_what_tells_nothing_is_refused_with_the_reason(net: nn.Module, result: Result) -> None:
    with refused("not-finite", CalibrationError, site="batches", says="call 1 .*NaN"):
        result.sensitivity([rows(), rows() * math.nan], net)
    with refused("not-finite", CalibrationError, site="batches", says="call 0 has no rows"):
        quantfx.sensitivity(
            net,
            (rows(),),
            [rows()[:0]],
            calibration=[rows()],
            backend=X86,
            dynamic_shapes=({0: torch.export.Dim.AUTO},),
        )
    with refused("no-gradients", fix="the model that was quantized"):
        result.sensitivity([rows()], nn.Sequential(nn.Linear(16, 8)).eval())


class Masked(nn.Module):
    """Scores, of which some are minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        mask = torch.arange(8) % 3 == 1
        return self.net(x).masked_fill(mask, -torch.inf)


def test_a_mask_has_no_power(net: nn.Module) -> None:
    masked = seeded(Masked)
    found = quantfx.sensitivity(
        masked, (rows(),), [rows(1)], backend=X86, whole=True, evaluate=1, progress=False
    )
    assert found.evaluation is not None
    assert found.evaluation.exact == math.inf
    assert 20 < found.evaluation.rounded < 60
    assert noise_decibels(found.predict()) == pytest.approx(found.evaluation.rounded, abs=0.1)
    plain = quantfx.sensitivity(masked.net, (rows(),), [rows(1)], backend=X86, progress=False)
    for name in ("linear", "linear_1", "linear_2"):
        assert found.at(name).sqnr == pytest.approx(plain.at(name).sqnr, abs=3)


def test_a_chart_needs_its_folder(tmp_path: Path) -> None:
    with refused("no-such-file", FileError, site="no/chart.svg", fix="create it first"):
        by_hand().chart(tmp_path / "no" / "chart.svg")


def test_what_was_measured_is_not_called_expected() -> None:
    whole = Whole(0.25, (0.1, 0.1, 0.05))
    assert "measured at the outputs" in str(by_hand(whole))
    assert "expected at the outputs" in str(by_hand())
    assert by_hand(whole).as_dict()["whole"] == {"noise": 0.25, "shares": [0.1, 0.1, 0.05]}
    assert by_hand().as_dict()["whole"] is None

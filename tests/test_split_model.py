"""A transformer's outlier channels are split before quantization, and what becomes of it there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observe.equalize.split_outliers import SELECT
from quantfx.passes.pipeline.permits import Permit, Permits, permitting
from quantfx.passes.pipeline.record import remarks_of
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused

WIDTH = 32


class Block(nn.Module):
    """A norm with a few channels that are many times as large as the others; two linears read it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24, bias=False)
        self.last = nn.Linear(24, 16)
        with torch.no_grad():
            self.norm.weight[[3, 17]] = torch.tensor([40.0, 25.0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.last(torch.tanh(self.query(x) * self.key(x) / 50))


def network() -> nn.Module:
    return seeded(Block).eval()


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, WIDTH, generator=torch.Generator().manual_seed(seed))


DATA = list(torch.split(rows(64), 16))


def split(model: nn.Module, share: float = 0.25) -> GraphModule:
    return quantfx.split_outliers(model, (DATA[0],), DATA, share=share, progress=False)


def told(graph: GraphModule, kind: str) -> list[str]:
    return [each.message for each in remarks_of(graph, Remark) if each.kind == kind]


def test_the_function_stays_and_int8_errs_less() -> None:
    model, held = network(), rows(128, 9)
    wider = split(model)
    with torch.no_grad():
        exact = model(held)
        assert float((wider(held) - exact).abs().max()) <= 1e-5 * float(exact.abs().max())
        results = [
            unchecked.quantize(each, (DATA[0],), calibration=DATA, backend="x86")
            for each in (model, wider)
        ]
        plain, better = (sqnr_db(exact, each.quantized(held)) for each in results)
        assert better > plain + 2
        found = results[1].module(held)
        assert sqnr_db(results[1].quantized(held), found) > 35
    assert [each.report.planned for each in results] == [4, 4]  # and the product


def test_two_linears_read_one_copy_and_records_say_so() -> None:
    wider = split(network())
    copies = wider.graph.find_nodes(op="call_function", target=SELECT)
    assert "8 channels beside 32: outputs err by" in " ".join(told(wider, "applied"))
    (of_norm,) = (each for each in copies if str(each.args[0]) == "layer_norm")
    (product,) = of_norm.users
    assert {each.name for each in product.users} == {"linear", "linear_1"}
    places = constant(wider, of_norm.args[2])
    assert places is not None
    assert len(places) == WIDTH + 8
    # The two that stick out, and no other, are cut.
    counts = torch.bincount(places)
    assert set((counts > 1).nonzero().flatten().tolist()) == {3, 17}


def test_the_model_is_not_changed_and_its_modules_keep_their_names() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wider = split(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert wider.state_dict()["query.weight"].shape == (24, WIDTH + 8)


def test_what_gains_nothing_is_left_and_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    data = [torch.ones(16, 8)]  # every value is one: eight bits are exact
    wider = quantfx.split_outliers(model, (data[0],), data, progress=False)
    assert not wider.graph.find_nodes(op="call_function", target=SELECT)
    assert "outputs err no less on held-out inputs" in " ".join(told(wider, "missed"))


def test_few_rows_cannot_judge() -> None:
    few = [rows(4)]
    wider = quantfx.split_outliers(network(), (few[0],), few, progress=False)
    assert not wider.graph.find_nodes(op="call_function", target=SELECT)
    assert "4 rows of data, of 8 needed" in " ".join(told(wider, "missed"))


def test_a_bisection_can_leave_a_tensor_out() -> None:
    with permitting(Permits(refused=frozenset({Permit("split-outliers", "", "layer_norm")}))):
        wider = split(network())
    copies = wider.graph.find_nodes(op="call_function", target=SELECT)
    assert "layer_norm" not in {str(each.args[0]) for each in copies}


def test_it_is_saved_loaded_and_free_in_its_batch(tmp_path: Path) -> None:
    wider = split(network())
    result = unchecked.quantize(wider, (DATA[0],), calibration=DATA, backend="x86")
    result.save(tmp_path / "wider.quantfx")
    again = quantfx.load(tmp_path / "wider.quantfx")
    more = rows(20, 4)
    assert torch.equal(again.module(more), result.module(more))


class Tied(Block):
    """The last linear has the weight of the first, whose copies it would not have."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(WIDTH, 24, bias=False)
        self.last.weight = self.query.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x)) + self.query(self.norm(x))


class Overwritten(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        first = self.query(x)
        x[:, :2].mul_(0.5)
        return first + self.key(x)


@pytest.mark.parametrize(
    ("make", "why"),
    [(Tied, "also reads the weight"), (Overwritten, "overwrites it")],
    ids=["tied", "overwritten"],
)
def test_what_is_not_free_to_change_is_named_and_stays(make: type[Block], why: str) -> None:
    model, held = seeded(make).eval(), rows(8, 9)
    wider = split(model)
    assert why in " ".join(told(wider, "missed"))
    with torch.no_grad():
        torch.testing.assert_close(wider(held), model(held), rtol=1e-5, atol=1e-5)
    assert not wider.graph.find_nodes(op="call_function", target=SELECT)


def test_half_precision_stays_half() -> None:
    model = network().half()
    data = [each.half() for each in DATA]
    wider = quantfx.split_outliers(model, (data[0],), data, share=0.25, progress=False)
    with torch.no_grad():
        assert wider(data[0]).dtype == torch.float16


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_is_between_none_and_all(share: float) -> None:
    with refused("number-range", PipelineError, site="share"):
        split(network(), share)

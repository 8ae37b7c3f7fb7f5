from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.zoo.faults import Explained, faults_of
from quantfx.tools.zoo.measure import lowest_decibels, measure
from quantfx.tools.zoo.networks import Network, Values, ZooError
from quantfx.tools.zoo.row import Row, Stage
from tests.refusals import refused


class Small(nn.Module):
    """A convolution with a batch norm, and a transposed one, which stays float."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.up = nn.ConvTranspose2d(channels, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        up: Tensor = self.up(self.norm(self.conv(x)).relu())
        return {"up": up, "mean": up.mean((2, 3))}


class Numbers(nn.Module):
    """Depends on a number that it reads from a tensor: Dynamo takes it, export does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 1e6 else self.layer(x).relu()


class Broken(nn.Module):
    """Cannot be made."""

    def __init__(self) -> None:
        raise KeyError("size")


def network(name: str, **arguments: int) -> Network:
    inputs = {"x": Values("normal", (2, 8) if name == "Numbers" else (1, 3, 8, 8))}
    return Network(name.lower(), "module", f"{__name__}:{name}", inputs, arguments)


def measured(name: str, **arguments: int) -> tuple[Row, list[str]]:
    row, written = Row(name.lower(), "module"), list[str]()
    measure(network(name, **arguments), row, lambda row: written.append(row.to_json()))
    return row, written


@pytest.mark.sweep
def test_every_stage_of_a_network() -> None:
    row, written = measured("Small", channels=8)
    stages = ["build", "quantize", "module", "compile", "file", "auto"]
    assert list(row.stages) == stages
    assert {stage.outcome for stage in row.stages.values()} == {"done"}, row.stages
    assert row.planned == row.lowered == row.compiled == 1
    assert row.decibels.keys() == {"module", "compiled", "loaded", "auto", "q/dq, module", "q/dq, compiled"}  # fmt: skip
    assert min(row.decibels.values()) > 30
    assert row.decibels["loaded"] == row.decibels["module"]
    assert (row.steps, row.auto_state) == (0, "int8")
    (operator,) = row.floats
    assert (operator.op, operator.count) == ("aten.conv_transpose2d.input", 1)
    assert faults_of(row, Explained()) == (
        f"float: aten.conv_transpose2d.input x1: {operator.reason}",
    )
    # Before each stage a row was written in which it is the one that ended the process.
    rows = [Row.from_json(text) for text in written]
    ends = [next(reversed(each.stages)) for each in rows[:-1]]
    assert ends == stages
    assert all(
        each.stages[end] == Stage("ended", 0.0) for each, end in zip(rows, ends, strict=False)
    )
    assert rows[-1] == row


def test_a_refusal_ends_what_needs_the_result_and_not_auto() -> None:
    row, _ = measured("Numbers")
    assert list(row.stages) == ["build", "quantize", "auto"]
    assert row.stages["quantize"].outcome == "refused"
    assert row.stages["quantize"].message.startswith("CaptureError")
    assert any(fault.startswith("quantize: refused") for fault in faults_of(row, Explained()))


def test_a_network_that_cannot_be_made() -> None:
    row, _ = measured("Broken")
    assert row.stages.keys() == {"build"}
    assert row.stages["build"].message.endswith(":Broken: KeyError: 'size'")


def test_the_worst_output_counts_over_all_batches() -> None:
    good, bad = torch.full((4,), 10.0), torch.full((2,), 10.0)
    reference = [{"a": good, "b": bad, "ids": torch.arange(3)}] * 2
    outputs = [(good, bad + 1), (good, bad)]
    assert lowest_decibels(reference, outputs) == pytest.approx(10 * math.log10(200))
    assert lowest_decibels(reference, [(good, bad)] * 2) == math.inf
    with refused("other-shapes", ZooError):
        lowest_decibels(reference, [(good,)] * 2)
    with refused("other-shapes", ZooError):
        lowest_decibels([torch.arange(3)], [torch.arange(3)])

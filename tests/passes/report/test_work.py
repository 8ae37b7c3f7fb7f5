from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quantfx
from quantfx.passes.report.work import OperatorWork
from tests import unchecked
from tests.export_cases import CASES as EXPORT_CASES
from tests.export_cases import Net
from tests.foreign_operators import Experts, experts

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def work(model: nn.Module, *inputs: Tensor, **options: Any) -> dict[str, OperatorWork]:
    result = unchecked.quantize(model.eval(), inputs, strict=False, **options)
    found = {str(row.site): row for row in result.report.work}
    assert len(found) == len(result.report.work)
    return found


def facts(row: OperatorWork) -> tuple[str, int | None, int, bool]:
    return row.op, row.macs, row.weight_bytes, row.planned


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16", "weight-only"])
def test_a_planned_layer_has_its_weights_in_float_whatever_its_mode(mode: str) -> None:
    found = work(nn.Linear(8, 4), X, config=mode)
    assert facts(found["linear"]) == ("aten.linear.default", 128, 4 * (32 + 4), True)


def test_a_layer_kept_float_has_the_same_work() -> None:
    config = quantfx.Config().module("0", None)
    found = work(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4)), X, config=config)
    assert facts(found["linear"]) == ("aten.linear.default", 128, 4 * (32 + 4), False)
    assert found["linear"].reason == "kept float: rule module='0'"
    assert found["linear_1"].planned


def test_the_operators_of_other_libraries_are_listed() -> None:
    found = work(Experts(), torch.randn(8, 64))
    assert facts(found["experts"]) == ("quantfx_tests.experts.default", None, 4 * 64 * 64, False)


def test_weights_that_several_operators_read_count_once_and_for_the_planned_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x + torch.mv(self.weight, x[0]), self.weight)

    found = work(Tied(), X)
    assert sum(row.weight_bytes for row in found.values() if row.planned) == 256
    # The quantized copy is another tensor: the product reads the float one.
    assert facts(found["mv"]) == ("aten.mv.default", 64, 256, False)

    class Twice(Tied):
        def forward(self, x: Tensor) -> Tensor:
            return torch.mv(self.weight, x[0]) + torch.mv(self.weight, x[0])

    assert sum(row.weight_bytes for row in work(Twice(), X).values()) == 256


def test_computed_weights_belong_to_the_operator_that_reads_them() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.turn = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.eye(8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.mm(x, experts(self.weight, self.turn).t())  # which is not folded

    found = work(Computed(), X)
    weights = {row.op: row.weight_bytes for row in found.values()}
    assert weights == {"aten.matmul.default": 4 * 128, "quantfx_tests.experts.default": 0}


def test_weights_inside_branches_count() -> None:
    case = EXPORT_CASES["cond"]
    model = case.make()
    found = work(model, *case.inputs)
    total = sum(4 * tensor.numel() for tensor in model.parameters())
    assert sum(row.weight_bytes for row in found.values()) == total


def test_equal_reasons_of_different_nodes_are_equal() -> None:
    def body(x: Tensor) -> tuple[Tensor, ...]:
        return F.linear(x, x.sin()), F.linear(x, x.cos()), F.linear(x, x.cos().sin())

    found = work(Net(body), X)
    reasons = {row.reason for row in found.values() if row.op == "aten.linear.default"}
    assert reasons == {"constant: … is computed, not a stored weight"}

import math

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.measure.metrics import size_in_bytes, sqnr_db, top1_agreement


def test_an_error_of_a_tenth_is_20_db() -> None:
    reference = torch.tensor([3.0, -4.0])
    assert sqnr_db(reference, reference * 1.1) == pytest.approx(20.0, abs=1e-4)


def test_the_reference_comes_first() -> None:
    assert sqnr_db(torch.tensor([1.0]), torch.tensor([3.0])) == pytest.approx(-6.0206, abs=1e-4)
    assert sqnr_db(torch.tensor([3.0]), torch.tensor([1.0])) == pytest.approx(3.5218, abs=1e-4)


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        (torch.ones(3), torch.ones(3), math.inf),
        (torch.zeros(3), torch.zeros(3), math.inf),
        (torch.zeros(3), torch.ones(3), -math.inf),
        (torch.ones(3), torch.full((3,), math.inf), -math.inf),
        (torch.full((2,), 1e30), torch.full((2,), 1.1e30), pytest.approx(20.0, abs=1e-4)),
    ],
)
def test_sqnr_at_the_edges(reference: Tensor, other: Tensor, expected: float) -> None:
    assert sqnr_db(reference, other) == expected


def test_a_nan_is_not_hidden() -> None:
    nan = torch.tensor([math.nan, 1.0])
    assert math.isnan(sqnr_db(nan, torch.ones(2)))
    assert math.isnan(sqnr_db(torch.zeros(2), nan))


def test_top1_agreement_is_the_share_of_equal_rows() -> None:
    reference = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 5.0]])
    other = torch.tensor([[0.0, 0.1], [0.0, 0.1], [-2.0, -1.0]])
    assert top1_agreement(reference, other) == pytest.approx(2 / 3)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(3,\) differ"):
        sqnr_db(torch.ones(1, 3), torch.ones(3))
    with pytest.raises(ValueError, match="n > 0"):
        top1_agreement(torch.ones(0, 3), torch.ones(0, 3))


def test_size_counts_shared_memory_once_and_constants_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert size_in_bytes(model) == 2 * 4 * 4 * 4
    model[1].weight = model[0].weight
    assert size_in_bytes(model) == 4 * 4 * 4
    model.register_buffer("scale", torch.ones(2))
    object.__setattr__(model, "constant", torch.ones(5, dtype=torch.int8))
    assert size_in_bytes(model) == 4 * 4 * 4 + 2 * 4 + 5

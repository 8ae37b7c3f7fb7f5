from __future__ import annotations

import warnings
from collections import UserDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CalibrationError
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.observer import Observer
from quantfx.patterns.errors import QuantfxWarning
from tests.refusals import refused, warned

X = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))


class Attends(nn.Module):
    """Attention whose scores take a mask; nothing quantizes the mask."""

    def __init__(self, *, baked: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.baked = baked

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows: Tensor = self.first(x)
        weights = torch.softmax(rows @ rows.mT + mask, -1)
        rows = self.second(weights @ rows)
        return rows.reshape(x.shape[0] * 4, 8) if self.baked else rows


CAUSAL = torch.full((4, 4), float("-inf")).triu(1)


def prepared(*, baked: bool = False) -> GraphModule:
    torch.manual_seed(0)
    return x86().prepare(capture(Attends(baked=baked).eval(), (X, CAUSAL)))


def observed(module: GraphModule) -> list[tuple[Tensor, Tensor]]:
    observers = [each for each in module.modules() if isinstance(each, Observer)]
    return [each.extremes for each in observers if each.extremes is not None]


def test_a_mask_of_infinity_is_no_data() -> None:
    assert calibrate(prepared(), [(X, CAUSAL)]) == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, torch.full((4, 4), float("-inf"))), "not-finite: batch 0: second (linear_1).input"),
        ((X * float("nan"), CAUSAL), "not-finite: batch 0: first (linear).input"),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_refused_where_an_observer_sees_it(batch: Any, message: str) -> None:
    with refused(message, CalibrationError):
        calibrate(prepared(), [batch])


def rows(count: int, seed: int) -> Tensor:
    return torch.randn(count, 4, 8, generator=torch.Generator().manual_seed(seed))


def test_a_batch_the_graph_does_not_hold_for_is_observed_in_pieces() -> None:
    counts = (2, 5, 1)
    data = [(rows(count, count), CAUSAL) for count in counts]
    module = prepared(baked=True)
    with warned("other-rows", says="5 rows.*of 2") as caught:
        assert calibrate(module, data) == len(counts)
    assert len(caught) == 1
    line = "dynamic_shapes={'x': {0: Dim.AUTO}, 'mask': None}"
    assert line in str(caught[0].message)
    by_hand = prepared(baked=True)
    pieces = [x[[i, (i + 1) % len(x)]] for x, _ in data for i in range(0, len(x), 2)]
    calibrate(by_hand, [(piece, CAUSAL) for piece in pieces])
    torch.testing.assert_close(observed(module), observed(by_hand), rtol=0, atol=0)
    assert observed(module)


def test_a_free_first_dimension_is_not_cut() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        assert calibrate(prepared(), [(rows(5, 0), CAUSAL)]) == 1


def test_what_cannot_be_cut_says_the_whole_line() -> None:
    with pytest.raises(CalibrationError) as error:
        calibrate(prepared(), [(torch.zeros(3, 7, 8), torch.zeros(7, 7))])
    assert str(error.value) == (
        "batch 0: input 'x' has shape (3, 7, 8), captured with (any, 4, 8): let the size vary "
        "with dynamic_shapes={'x': {0: Dim.AUTO, 1: Dim.AUTO}, 'mask': {0: Dim.AUTO, 1: Dim.AUTO}} "
        "(from torch.export import Dim), or pad or crop the batches with input_fn="
    )


@dataclass
class Sample:
    x: Tensor
    mask: Tensor
    label: int


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            {"x": X, "mask": CAUSAL, "labels": X},
            "batch-names: batch 0",
        ),
        (
            UserDict({"x": X, "mask": CAUSAL, "labels": X, "ids": X}),
            "batch-names: batch 0",
        ),
        (
            Sample(X, CAUSAL, 1),
            "batch-names: batch 0",
        ),
        (
            {"image": X},
            "batch-names: batch 0",
        ),
        ({"x": X}, "batch-names: batch 0"),
        (X, "batch-names: batch 0"),
        ((X, CAUSAL, X), "batch-names: batch 0"),
        ("text", "batch-form: batch 0"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(batch: Any, message: str) -> None:
    with refused(message, CalibrationError):
        calibrate(prepared(), [batch])


def test_the_advice_works() -> None:
    batch = {"x": X, "mask": CAUSAL, "labels": X}
    pick = eval("lambda batch: {'x': batch['x'], 'mask': batch['mask']}")  # as a user would
    assert calibrate(prepared(), [batch], input_fn=pick) == 1


def test_a_decoder_of_torchs_takes_its_causal_mask() -> None:
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerDecoder(layer, 1).eval()
    inputs = (X, X, CAUSAL)
    module = x86().prepare(capture(model, inputs, {"tgt_is_causal": True}))
    batch = {"tgt": X, "memory": X, "tgt_mask": CAUSAL, "tgt_is_causal": True}
    assert calibrate(module, [batch]) == 1

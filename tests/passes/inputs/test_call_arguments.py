from __future__ import annotations

import inspect
from collections import UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.call_arguments import arguments_of, misfit
from tests import unchecked
from tests.refusals import refused

IDS, MASK = torch.arange(6).reshape(2, 3), torch.ones(2, 3)


class Encoded(NamedTuple):
    input_ids: Tensor
    attention_mask: Tensor


@dataclass
class Encoding:
    input_ids: Tensor
    attention_mask: Tensor


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(10, 8), nn.Linear(8, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, scale: float = 1.0) -> Tensor:
        rows: Tensor = self.linear(self.embed(input_ids) * scale)
        return rows * attention_mask[..., None]


NAMED: list[Any] = [
    {"input_ids": IDS, "attention_mask": MASK},
    UserDict({"input_ids": IDS, "attention_mask": MASK}),  # as a tokenizer's BatchEncoding
    Encoded(IDS, MASK),
    Encoding(IDS, MASK),
]


@pytest.mark.parametrize("given", NAMED, ids=lambda each: type(each).__name__)
def test_examples_and_batches_by_name(given: Any) -> None:
    model = Encoder().eval()
    by_name = quantfx.quantize(model, given, calibration=[given, NAMED[0]])
    in_place = quantfx.quantize(model, (IDS, MASK), calibration=[(IDS, MASK)] * 2)
    expected = in_place.quantized(IDS, MASK)
    assert torch.equal(by_name.quantized(input_ids=IDS, attention_mask=MASK), expected)
    assert torch.equal(by_name.module(IDS, attention_mask=MASK), in_place.module(IDS, MASK))


def test_one_tensor_is_the_only_argument() -> None:
    x = torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    result = unchecked.quantize(model, x)
    assert result.report.planned == 1
    module = quantfx.prepare_qat(model.train(), x)
    assert module(x).shape == (4, 8)


@pytest.mark.parametrize(
    ("given", "kwargs", "message"),
    [
        (3, None, "batch-form: example_inputs"),
        ({**NAMED[0], "labels": IDS}, None, "input-names: example_inputs"),
        (
            {"input_ids": IDS, "mask": MASK},
            None,
            "input-names: example_inputs",
        ),
        ({"input_ids": IDS}, None, "input-names: example_inputs"),
        ((IDS,), None, "input-names: example_inputs"),
        ((IDS, MASK, 1.0, 2.0), None, "input-names: example_inputs"),
        (NAMED[0], {"input_ids": IDS}, "taken-name: input_ids"),
    ],
)
def test_examples_that_do_not_fit_are_refused_by_name(
    given: Any, kwargs: dict[str, Any] | None, message: str
) -> None:
    with refused(message, CaptureError):
        quantfx.capture(Encoder().eval(), given, kwargs)


def test_a_named_tuple_of_other_names_is_positional() -> None:
    pair = Encoded(IDS, MASK)
    assert arguments_of(pair, ["x", "y"]) == ((IDS, MASK), {})
    assert arguments_of(pair, ["input_ids"])[1].keys() == {"input_ids", "attention_mask"}  # type: ignore[index]
    assert arguments_of("text", ["x"]) is None
    assert arguments_of(Encoding, ["input_ids"]) is None


def test_signatures_that_take_anything_fit() -> None:
    def anything(*args: Any, key: int, **kwargs: Any) -> None: ...

    signature = inspect.signature(anything)
    assert misfit(signature, (1, 2), {"key": 1, "other": 2}) == ""
    assert misfit(signature, (), {}) == "'key' is missing"

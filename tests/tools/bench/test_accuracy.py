from __future__ import annotations

import math

import pytest
import torch

from quantfx.tools.bench.accuracy import Accuracy, compare_outputs
from quantfx.tools.bench.engine import EngineError
from tests.refusals import refused

LOGITS = torch.tensor([[1.0, 2.0], [4.0, 3.0]])


def test_equal_logits() -> None:
    assert compare_outputs([LOGITS, LOGITS], [LOGITS, LOGITS]) == Accuracy(math.inf, 1.0)


def test_signal_to_noise_and_agreement_are_over_all_batches() -> None:
    found = compare_outputs([LOGITS, LOGITS], [LOGITS, LOGITS.flip(1)])
    assert found.sqnr_db == pytest.approx(10 * math.log10(60 / 4))
    assert found.top1 == 0.5


def test_nesting_does_not_matter_and_integers_are_left_out() -> None:
    reference = {"a": LOGITS, "b": [LOGITS, torch.arange(3)]}
    found = compare_outputs([reference], [(LOGITS, LOGITS)])
    assert found == Accuracy(math.inf, None)  # two tensors: which one holds classes?


def test_bfloat16_is_compared_in_float32() -> None:
    assert compare_outputs([LOGITS], [LOGITS.bfloat16()]).sqnr_db == math.inf


@pytest.mark.parametrize("rows", [LOGITS.unsqueeze(0), LOGITS[:, :1]])
def test_only_rows_of_classes_have_an_agreement(rows: torch.Tensor) -> None:
    assert compare_outputs([rows], [rows]).top1 is None


@pytest.mark.parametrize("output", [LOGITS[:1], (LOGITS, LOGITS), None])
def test_other_shapes_are_an_error(output: object) -> None:
    with refused("other-shapes", EngineError):
        compare_outputs([LOGITS], [output])


def test_nothing_to_compare_is_an_error() -> None:
    with refused("other-shapes", EngineError):
        compare_outputs([torch.arange(3)], [torch.arange(3)])

"""True accuracy: a network trained on scikit-learn's digits loses less than a point to int8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import quantfx
from quantfx.backends.checks import targets
from quantfx.backends.x86 import x86
from quantfx.tools.models.digits import DigitsRun


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).float().mean())


@pytest.mark.parametrize("target", ["avx2", "avx512_vnni"])
def test_int8_is_within_a_point_of_float(digits: DigitsRun, target: str) -> None:
    images, labels = digits.test_images, digits.test_labels
    result = quantfx.quantize(
        digits.model,
        (images,),
        calibration=[digits.train_images[:256]],
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        backend=x86(targets.get(target)),
    )
    with torch.no_grad():
        expected = accuracy(digits.model(images), labels)
        assert expected > 0.96
        assert accuracy(result.quantized(images), labels) >= expected - 0.01


def test_the_compiled_network_is_as_accurate(digits: DigitsRun) -> None:
    images, labels = digits.test_images, digits.test_labels
    calibration = [digits.train_images[: len(images)]]
    result = quantfx.quantize(digits.model, (images,), calibration=calibration)
    compiled = result.compile()
    with torch.no_grad():
        expected = accuracy(digits.model(images), labels)
    assert result.report.planned == result.report.lowered
    assert accuracy(compiled(images), labels) >= expected - 0.01

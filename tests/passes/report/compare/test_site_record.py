"""The channels of an operator are where its definition has them, whatever the number of dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph

from quantfx.passes.report.compare.site_record import channel_axis
from quantfx.patterns.schema import resolve_op
from tests.unchecked import quantize


@pytest.mark.parametrize(
    ("operator", "axis"),
    [
        ("aten.conv1d.default", -2),
        ("aten.conv2d.padding", -3),
        ("aten.conv_transpose3d.input", -4),
        ("aten.adaptive_avg_pool2d.default", -3),
        ("aten.pixel_shuffle.default", -3),
        ("aten.linear.default", -1),
        ("aten.bmm.default", -1),
        ("aten.layer_norm.default", -1),
        ("aten.instance_norm.default", 1),
        ("aten.lstm.input", -1),
        ("aten.add.Tensor", None),
        ("aten.relu_.default", None),
        ("aten.cat.default", None),
    ],
)
def test_the_operator_says_it(operator: str, axis: int | None) -> None:
    assert channel_axis(Graph().call_function(resolve_op(operator))) == axis


class Conv(nn.Module):
    """A convolution of one image, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


def test_silent_channels_of_an_image_without_a_batch() -> None:
    x = torch.randn(6, 8, 8)
    x[:3] = 0
    model = Conv().eval()
    result = quantize(model, (x,), calibration=[x])
    (found,) = result.compare([x]).sites
    (tensor,) = found.inputs
    assert (tensor.channels, tensor.silent_channels) == (6, 3)
    assert [each.name for each in found.diagnoses] == ["silent-channels"]

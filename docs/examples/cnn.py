"""A convolutional network, static: the default recipe, its report, and a comparison with float.

It prints::

    backend x86, target ...
    quantized: 100% of 19.8 M multiply-accumulates, 100% of 38.7 KiB of weights
    ...
"""

import torch
from torch import Tensor, nn

import quantfx
from quantfx.testing import assert_quantized


class Block(nn.Module):
    """Two convolutions with batch norms, and the sum around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the same shape."""
        y = torch.relu(self.norm(self.first(x)))
        return torch.relu(self.second(y) + x)


def network() -> nn.Module:
    """Return a small residual network for images of 32 x 32."""
    stem = (nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(*stem, Block(16), Block(16), *head).eval()


if __name__ == "__main__":
    torch.manual_seed(0)
    model = network()
    batches = [torch.randn(8, 3, 32, 32) for _ in range(4)]
    result = quantfx.quantize(model, (batches[0],), calibration=batches)
    assert_quantized(result, float_sites=[])  # all on kernels, nothing in float
    print(result.report)
    print(result.compare(batches))

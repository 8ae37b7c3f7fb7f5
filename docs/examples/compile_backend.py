"""torch.compile: a model that torch.export rejects, because it branches on its data in Python.

It prints::

    int8
    graph 1 of 4: forward (...): int8
    ...
"""

import torch
from torch import Tensor, nn

import quantfx


class Gated(nn.Module):
    """Takes another branch for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.bright, self.dark = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps."""
        y = torch.relu(self.first(x))
        if float(x.mean()) > 0:  # breaks the graph
            return torch.relu(self.bright(y))
        return torch.relu(self.dark(y))


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Gated().eval()
    batches = [torch.randn(2, 3, 12, 12) + (0.5 if i % 2 else -0.5) for i in range(8)]
    int8 = quantfx.auto(model, calibration_batches=len(batches))
    with torch.no_grad():
        for batch in batches:
            int8(batch)  # float, observed
        int8.convert()
        for batch in batches[:2]:
            exact, given = model(batch), int8(batch)
            assert (given - exact).norm() < 0.05 * exact.norm()
    print(int8.state)
    print(int8.report)

"""An observer of your own: the range from minus to plus the largest magnitude that was seen.

It prints::

    from -4 to 4: 8.00 wide
"""

import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes import Observer, QParams, QuantSpec, qparams_from_range


class LargestOfAll(Observer):
    """Never clips a value that it saw, and is symmetric around 0."""

    largest: Tensor

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.register_buffer("largest", torch.tensor(-1.0))

    def observe(self, x: Tensor) -> None:
        """Keep the largest magnitude."""
        self.largest = torch.maximum(self.largest, x.abs().max())

    @property
    def observed(self) -> bool:
        """Whether anything was seen."""
        return bool(self.largest >= 0)

    def calculate_qparams(self) -> QParams:
        """Return scale and zero point."""
        self.require_observed()
        return qparams_from_range(-self.largest, self.largest, self.spec)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    batches = [torch.randn(32, 8).clamp(-4, 4) for _ in range(4)]
    batches[2][0, 0] = 4.0  # the largest of all
    spec = QuantSpec(torch.uint8, 0, 255, symmetric=False, observer=LargestOfAll)
    backend = quantfx.backends.get("x86").with_specs(act=spec)
    result = quantfx.quantize(model, (batches[0],), calibration=batches, backend=backend)
    [first] = result.explain("0")
    qparams = first.tensors[0].qparams
    assert qparams is not None
    assert qparams.scale is not None
    print(f"from -4 to 4: {qparams.scale * 255:.2f} wide")

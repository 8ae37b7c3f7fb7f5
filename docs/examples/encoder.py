"""A transformer encoder: dynamic int8 without data, static int8 with it, and both in one model.

It prints::

    dynamic: 1 embedding, weight-only, 9 linear, dynamic; off by less than 5%
    static: 1 embedding, weight-only, 9 linear; off by less than 5%
    mixed: 1 embedding, weight-only, 4 linear, dynamic, 4 linear; off by less than 5%
"""

import torch
from torch import Tensor, nn

import quantfx
from quantfx import Config


class Encoder(nn.Module):
    """Token embeddings, two layers of attention, and a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(100, width)
        layer = nn.TransformerEncoderLayer(width, 4, 64, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(n, length)`` to scores ``(n, 5)``."""
        scores: Tensor = self.head(self.layers(self.words(tokens)).mean(1))
        return scores


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Encoder().eval()
    batches = [torch.randint(0, 100, (8, 16)) for _ in range(8)]
    mixed = Config("static").module("layers.layers.0.*", "dynamic").module("head", None)
    with torch.no_grad():
        exact = model(batches[0])
    for name, config in (("dynamic", "dynamic"), ("static", "static"), ("mixed", mixed)):
        data = None if name == "dynamic" else batches
        result = quantfx.quantize(model, (batches[0],), calibration=data, config=config)
        with torch.no_grad():
            error = (result.module(batches[0]) - exact).norm() / exact.norm()
        rows = ", ".join(f"{row.lowered} {row.label}" for row in result.report.rows)
        print(f"{name}: {rows}; off by {'less' if error < 0.05 else 'more'} than 5%")

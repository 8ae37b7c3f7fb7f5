"""An LSTM on torch's native kernels: dynamic int8 layers, an 8-bit table, a static head.

It prints::

    embedding, weight-only 1
    lstm, dynamic 1
    linear 1
    more than 90% of the words keep their tag
"""

import torch
from torch import Tensor, nn

import quantfx
from quantfx import Config


class Tagger(nn.Module):
    """One score for each kind of word, for every word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 16)
        self.memory = nn.LSTM(16, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(n, length)`` to scores ``(n, length, 6)``."""
        states, _ = self.memory(self.words(tokens))
        scores: Tensor = self.head(states)
        return scores


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Tagger().eval()
    batches = [torch.randint(0, 100, (4, 12)) for _ in range(4)]
    config = Config("static").op("lstm", "dynamic").op("embedding", "weight-only")
    result = quantfx.quantize(
        model, (batches[0],), calibration=batches, backend="native", config=config
    )
    for row in result.report.rows:
        print(row.label, row.lowered)
    with torch.no_grad():
        exact, int8 = model(batches[0]), result.module(batches[0])
    assert (int8 - exact).norm() < 0.1 * exact.norm()
    same = float((int8.argmax(-1) == exact.argmax(-1)).float().mean())
    print(f"{'more' if same > 0.9 else 'less'} than 90% of the words keep their tag")

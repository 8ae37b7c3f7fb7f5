"""Products by a stored matrix are linears in every mode, in whichever words a model writes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded
from tests import unchecked

WIDTH = 32
ROWS = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
WORDS = (
    "Conv1D of GPT-2",
    "matmul",
    "einsum",
    "einsum of rows",
    "weight transposed beforehand",
    "matmul of flat rows",
)


class Products(nn.Module):
    """One product after the other, each by a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            torch.randn(WIDTH, WIDTH) / WIDTH**0.5 for _ in range(len(WORDS))
        )
        self.bias = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rows behind all products."""
        conv1d, plain, contracted, by_rows, turned, flat = self.weights
        # transformers writes a view of sizes, addmm, and a view back.
        x = torch.addmm(self.bias, x.view(-1, x.size(-1)), conv1d).view(*x.shape[:-1], WIDTH)
        x = torch.tanh(x @ plain)
        x = torch.tanh(torch.einsum("bik,ko->bio", x, contracted))
        x = torch.tanh(torch.einsum("...k,ok->...o", x, by_rows))
        x = torch.tanh(nn.functional.linear(x, turned.t()))
        return torch.mm(x.flatten(0, 1), flat).reshape(x.shape)


@pytest.mark.parametrize("mode", ["static", "dynamic", "fp16", "weight-only", "weight-only-4bit"])
def test_every_spelling_is_a_linear_on_a_kernel(mode: str) -> None:
    model = seeded(Products)
    result = unchecked.quantize(model, (ROWS,), calibration=[ROWS], config=mode)
    linears = [site for site in result.report.sites if site.kind.startswith("linear")]
    assert len(linears) == len(WORDS)
    assert all(site.kernel and not site.reason for site in linears)
    with torch.no_grad():
        expected, found = model(ROWS), result.module(ROWS)
    noise = (found - expected).square().mean() / expected.square().mean()
    assert float(-10 * torch.log10(noise)) > (8 if mode == "weight-only-4bit" else 25)

"""Accuracy to a budget: the cheapest recipe that reaches a metric.

It prints::

    sqnr >= 37: met
    recipe: ...
"""

import torch
from torch import nn

import quantfx

if __name__ == "__main__":
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(8 * 8 * 8, 4)).eval()
    images = torch.randn(64, 1, 3, 12, 12)
    # With labels, metric= is a function of a module and items; "agreement" needs none.
    found = quantfx.quantize_to(model, (images[0],), list(images), metric="sqnr", at_least=37.0)
    print(found)
    print(found.config.to_toml())
    again = quantfx.quantize(
        model, (images[0],), statistics=found.statistics, backend=found.result.backend
    )
    x = images[0]
    with torch.no_grad():
        assert torch.equal(again.module(x), found.result.module(x)), "the same bits, no search"

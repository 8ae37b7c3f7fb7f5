from __future__ import annotations

import pytest
import torch
from torch import nn

from quantfx import backends
from tests import unchecked

# Planes on both sides of 127 positions, from where on torch's kernel for channels_last raises.
PLANES = ((7, 18), (1, 127), (8, 16), (128, 1), (12, 12), (15, 17), (16, 16), (17, 16))
POOLS = (
    nn.MaxPool2d(1),
    nn.MaxPool2d((1, 2), ceil_mode=True),
    nn.MaxPool2d((3, 1), 1, (1, 0)),
    nn.MaxPool2d((1, 3), (1, 2), (0, 1), dilation=(1, 2), ceil_mode=True),
)


def pooled(plane: tuple[int, int], pool: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), pool, nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 3, *plane)
    if isinstance(pool, nn.MaxPool2d):
        try:
            model(x)
        except RuntimeError:  # a plane so narrow has no such windows
            return
    backend = backends.get("x86")
    result = unchecked.quantize(model, (x,), backend=backend)
    sites = {site.kernel for site in result.report.sites}
    assert "int8 max_pool2d" in sites
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        torch.testing.assert_close(result.module(given), result.quantized(given))


@pytest.mark.parametrize("plane", PLANES)
def test_a_pool_of_any_plane_is_int8(plane: tuple[int, int]) -> None:
    for pool in POOLS:
        pooled(plane, pool)


@pytest.mark.sweep
@pytest.mark.parametrize("positions", range(100, 300))
def test_a_pool_of_any_plane_is_int8_everywhere(positions: int) -> None:
    for height in (each for each in range(1, positions + 1) if positions % each == 0):
        for pool in POOLS:
            pooled((height, positions // height), pool)


@pytest.mark.parametrize("positions", range(100, 300))
def test_torch_needs_planes_in_order_from_128_positions_on(positions: int) -> None:
    """What the limit is for: should it rise, the copy can go."""
    x = torch.randint(0, 256, (1, 2, 1, positions), dtype=torch.uint8)
    last = x.contiguous(memory_format=torch.channels_last)
    if positions <= 127:
        assert torch.equal(torch.max_pool2d(last, (1, 2)), torch.max_pool2d(x, (1, 2)))
    else:
        with pytest.raises(RuntimeError, match="input_height"):
            torch.max_pool2d(last, (1, 2))

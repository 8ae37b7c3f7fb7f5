"""Two values a byte, and back."""

from __future__ import annotations

import torch

from quantfx.passes.quant.nibbles import pack_nibbles, unpack_nibbles


def test_every_value_comes_back_in_its_place() -> None:
    values = torch.randint(-8, 8, (5, 96), generator=torch.Generator().manual_seed(0)).to(
        torch.int8
    )
    packed = pack_nibbles(values)
    assert packed.dtype == torch.uint8
    assert packed.shape == (5, 48)
    assert torch.equal(unpack_nibbles(packed), values)


def test_the_first_sixteen_are_the_low_halves() -> None:
    values = torch.tensor([[*range(-8, 8), *range(7, -9, -1)]], dtype=torch.int8)
    assert pack_nibbles(values).tolist() == [[low | (15 - low) << 4 for low in range(16)]]

from __future__ import annotations

import pytest
import torch

from quantfx.passes.quant.halves import UNPACK_HALVES, pack_halves, unpack_halves


@pytest.mark.parametrize("columns", [1, 4, 7])
def test_what_is_packed_comes_back(columns: int) -> None:
    values = torch.randint(-8, 8, (16, columns), dtype=torch.int8)
    packed = pack_halves(values)
    assert packed.dtype == torch.uint8
    assert packed.shape == (16, (columns + 1) // 2)
    assert UNPACK_HALVES(packed, columns).equal(values)
    assert unpack_halves(packed[2:3], columns).equal(values[2:3])


def test_the_order_of_halves() -> None:
    packed = pack_halves(torch.tensor([[-8, 0, 7]], dtype=torch.int8))
    assert packed.tolist() == [[0xF0, 0x08]]

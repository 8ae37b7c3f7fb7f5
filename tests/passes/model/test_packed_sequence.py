"""Packed sequences are refused by name, and what the error says to write computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import quantfx
from quantfx.passes.errors import CaptureError
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused

FRAMES, LENGTHS = torch.randn(3, 5, 8), torch.tensor([2, 5, 3])


class Packs(nn.Module):
    """Last states and all results of rows of several lengths."""

    def __init__(self, *, first: bool = False) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(8, 12, batch_first=True)})
        self.first = first

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        zeros = x.new_zeros(1, x.shape[0], 12)
        first = (zeros, zeros) if self.first else None
        made, (hidden, _) = self.encoder["lstm"](packed, first)
        states, _ = pad_packed_sequence(made, batch_first=True, total_length=x.shape[1])
        return states, hidden[-1]


class Pads(Packs):
    """What the error says to write."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.encoder["lstm"](x)
        last = states[torch.arange(states.shape[0]), lengths - 1]
        behind = torch.arange(x.shape[1]) >= lengths[:, None]
        return states.masked_fill(behind[..., None], 0.0), last


@pytest.mark.parametrize("first", [False, True])
def test_the_layer_is_named(first: bool) -> None:
    model = seeded(lambda: Packs(first=first))
    with refused("packed-sequence", CaptureError, site="encoder.lstm", fix="lengths - 1"):
        quantfx.quantize(model, (FRAMES, LENGTHS), config="dynamic")


@pytest.mark.parametrize(
    ("given", "site"),
    [
        (lambda packed: packed, "example_inputs"),
        (lambda packed: (packed,), "example_inputs[0]"),
        (lambda packed: {"input": packed}, "example_inputs['input']"),
    ],
)
def test_the_input_is_named(given: Callable[[PackedSequence], Any], site: str) -> None:
    packed = pack_padded_sequence(FRAMES, LENGTHS, batch_first=True, enforce_sorted=False)
    with refused("packed-sequence", CaptureError, site=site):
        quantfx.capture(seeded(lambda: nn.LSTM(8, 12)), given(packed))


def test_the_way_out_computes_the_same() -> None:
    packs, pads = seeded(Packs), seeded(Pads)
    free = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    result = quantfx.quantize(pads, (FRAMES, LENGTHS), config="dynamic", dynamic_shapes=free)
    others = torch.randn(4, 9, 8), torch.tensor([9, 1, 4, 6])
    with torch.no_grad():
        wanted = packs(*others)
        torch.testing.assert_close(pads(*others), wanted)
    for made, want in zip(result.module(*others), wanted, strict=True):
        assert sqnr_db(want, made) > 30

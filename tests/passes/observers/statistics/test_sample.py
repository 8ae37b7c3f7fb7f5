"""Inputs that statistics keep: bounded, merged as one process would, stored as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.observers.statistics import sample as module
from quantfx.passes.observers.statistics.sample import Leaves, Sample
from quantfx.passes.observers.statistics.statistics import Statistics
from tests.passes.convert.repair.networks import backend

BATCHES = [torch.full((2, 8), float(number)) for number in range(4)]  # 64 bytes each


def collected(batches: list[Tensor], **options: Any) -> Statistics:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4)).eval()
    example = (BATCHES[0],)
    return quantfx.collect(model, example, batches, backend=backend(), progress=False, **options)


def values(found: Statistics) -> list[float]:
    return [float(call[0][0, 0]) for call in found.sample]


@pytest.mark.parametrize(("room", "kept"), [(63, 0), (64, 1), (130, 2), (2**20, 4)])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_as_many_as_there_is_room_for(
    room: int, kept: int, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLED", room)
    whole = collected(BATCHES)
    digests = dict(zip(whole.calls, range(4), strict=True))
    order = [digests[each] for each in sorted(digests)]
    assert order != [0, 1, 2, 3]
    assert values(whole) == order[:kept]
    assert values(collected([*BATCHES[::-1], BATCHES[0]])) == order[:kept], "in any order"
    parts = collected(BATCHES[:cut]), collected(BATCHES[cut:])
    assert values(Statistics.merge(*parts)) == order[:kept]


def test_behind_a_call_that_no_part_kept_nothing_is_kept() -> None:
    first, second = collected(BATCHES[:2]), collected(BATCHES[2:])
    less = replace(first, sample=first.sample[:1])
    smaller = sorted(first.calls)[1]
    found = Statistics.merge(less, second).sample
    assert len(found) == sum(each < smaller for each in [*first.calls, *second.calls])


def test_inputs_are_copied_and_left_out_without_layers() -> None:
    batch = torch.zeros(2, 8)
    found = collected([batch])
    batch.fill_(5)
    assert values(found) == [0]
    assert collected(BATCHES, layers=False).sample == ()


def test_a_file_holds_inputs_of_every_kind(tmp_path: Path) -> None:
    tensors = [
        torch.tensor([1.5, -2.0]).to(dtype)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.complex64)
    ]
    tensors += [torch.tensor([True, False]), torch.tensor(3, dtype=torch.int16), torch.zeros(0, 2)]
    call: Leaves = (*tensors, 3, 0.5, True, "text", None)
    path = replace(collected(BATCHES), sample=(call, ())).save(tmp_path / "data.statistics")
    (loaded, empty) = Statistics.load(path).sample
    assert empty == ()
    assert loaded[len(tensors) :] == call[len(tensors) :]
    for one, other in zip(tensors, loaded, strict=False):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "leaf",
    [math.inf, math.nan, object(), torch.eye(2).to_sparse()],
    ids=["infinity", "nan", "an object", "a sparse tensor"],
)
def test_what_no_file_holds_is_not_kept(leaf: object) -> None:
    sample = Sample()
    for digest, call in (("a", 1), ("c", 3), ("b", leaf), ("d", 4)):
        sample.add(digest, (call,))
    assert sample.calls == ((1,),)

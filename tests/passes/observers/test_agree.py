"""Two processes that train one model see one range: that of both their batches."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parallel import DistributedDataParallel

from quantfx.backends.x86 import x86
from quantfx.passes.capture.capture import capture
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.agree import agree_on_range, copy_from_first
from quantfx.passes.train.qat_module import QatModule
from quantfx.passes.train.qat_schedule import QatSchedule
from quantfx.tools.models.seeded import seeded
from tests.two_processes import run_two

STEPS, ROWS = 4, 6


def net() -> nn.Sequential:
    """Without batch norms, whose statistics are of each process's own rows."""
    return seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))


def data(step: int) -> Tensor:
    return torch.randn(2 * ROWS, 8, generator=torch.Generator().manual_seed(step)) * (step + 1)


@functools.cache
def captured() -> GraphModule:
    return capture(net(), (data(0)[:ROWS],), training=True)


def prepared(learn_scales: bool) -> QatModule:
    return x86().prepare(captured(), qat=True, learn_scales=learn_scales)


@dataclass(frozen=True)
class Case:
    """What differs from the plainest training.

    Attributes:
        learn_scales: Train the scales, too.
        alone: Let each process observe by itself.
        calibrate_first: Calibrate in the first process only.
        rounds_from: First step that rounds.
        empty: Give the second process no rows in every other step.
    """

    learn_scales: bool = False
    alone: bool = False
    calibrate_first: bool = False
    rounds_from: int = 0
    empty: bool = False


def train(module: nn.Module, rows: slice, inner: QatModule, case: Case) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    schedule = QatSchedule(case.rounds_from)
    for step in range(STEPS):
        schedule.apply(inner, step)
        optimizer.zero_grad()
        batch = data(step)[rows]
        if case.empty and rows.start and step % 2 == 0:
            batch = batch[:0]
        torch.autograd.backward(module(batch).square().sum())
        optimizer.step()


def work(rank: int, folder: str) -> list[DistributedDataParallel]:
    kept: list[DistributedDataParallel] = []
    for name, case in CASES.items():
        parallel = trained_in_parallel(rank, case)
        kept.append(parallel)
        torch.save(parallel.module.state_dict(), Path(folder) / f"{name} {rank}.pt")
    return kept


def trained_in_parallel(rank: int, case: Case) -> DistributedDataParallel:
    module = prepared(case.learn_scales)
    if case.alone:
        module.agree_within(None)
    if case.calibrate_first and rank == 0:
        calibrate(module, [data(9)[:ROWS]])
    rows = slice(rank * ROWS, (rank + 1) * ROWS)
    # Without its broadcast of buffers, if it can be, so that agreement is the observers' doing.
    parallel = DistributedDataParallel(module, broadcast_buffers=case.calibrate_first)
    train(parallel, rows, module, case)
    return parallel


States = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    """What two processes, which take seconds to start, ended with in each of the cases."""
    folder = tmp_path_factory.mktemp("states")
    run_two(work, str(folder), start="spawn")
    return {
        name: [torch.load(folder / f"{name} {rank}.pt", weights_only=True) for rank in range(2)]
        for name in CASES
    }


CASES = {
    "following": Case(),
    "learned": Case(learn_scales=True),
    "learned, calibrated in one, rounding late": Case(
        learn_scales=True, calibrate_first=True, rounds_from=2
    ),
    "an empty batch in one": Case(empty=True),
    "alone": Case(alone=True),
}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.alone])
def test_both_processes_end_with_one_state(name: str, states: States) -> None:
    case = CASES[name]
    first, second = states[name]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    if case == Case():
        module = prepared(False)
        train(module, slice(None), module, case)
        ranges = [key for key in first if ".range." in key]
        assert len(ranges) == 4
        of_input = min(ranges)  # exact: nothing trained comes before it
        assert torch.equal(first[of_input], module.state_dict()[of_input])


def test_processes_can_be_left_alone(states: States) -> None:
    first, second = states["alone"]
    assert any(not torch.equal(first[key], second[key]) for key in first if ".range." in key)


def test_without_other_processes_nothing_is_asked() -> None:
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    for group in ("world", None):
        assert agree_on_range(low, high, group) == (low, high)
        copy_from_first(low, group)

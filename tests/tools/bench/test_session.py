from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from quantfx.tools.bench.accuracy import Accuracy
from quantfx.tools.bench.engine import Engine, EngineError, EngineUnavailable
from quantfx.tools.bench.session import Session
from quantfx.tools.bench.workload import Workload
from tests.refusals import refused

X = torch.randn(2, 8)
WORKLOAD = Workload(nn.Linear(8, 4).eval(), (X,), ((X,),), ((X,), (X + 1,)))


def session(build: Callable[[Workload, int], Any]) -> Session:
    return Session(Engine("fake", "a fake", build), WORKLOAD, torch.get_num_threads())


def eager(workload: Workload, threads: int) -> Callable[..., Any]:
    assert threads == torch.get_num_threads()
    return torch.no_grad()(workload.model)


def test_building_compares_with_the_float_network() -> None:
    built = session(eager).build()
    assert built.seconds > 0
    assert built.accuracy == Accuracy(math.inf, 1.0)


def test_a_turn_times_its_calls_after_one_more() -> None:
    calls = 0

    def count(*inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        return WORKLOAD.model(*inputs).detach()

    worker = session(lambda workload, threads: count)
    worker.build()
    assert calls == 1 + len(WORKLOAD.test)
    calls = 0
    assert worker.turn(5) > 0
    assert calls == 6
    worker.close()
    with refused("not-built", EngineError):
        worker.turn(1)


def test_a_missing_package_makes_the_engine_unavailable() -> None:
    def build(workload: Workload, threads: int) -> Any:
        import no_such_package  # type: ignore[import-not-found]  # that is the point

        return no_such_package

    with refused(
        "missing-package", EngineUnavailable, site="no_such_package", fix="quantfx[bench]"
    ):
        session(build).build()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first line\nsecond"), "foreign-code"),
        (RuntimeError(), "foreign-code"),
        (EngineUnavailable("no bfloat16", rule="autocast-dtype"), "autocast-dtype"),
    ],
)
def test_a_failure_has_a_reason(error: Exception, message: str) -> None:
    def build(workload: Workload, threads: int) -> Any:
        raise error

    with refused(message, EngineError):
        session(build).build()


def test_nothing_to_break_down_is_an_error() -> None:
    worker = session(eager)
    worker.build()
    with refused("no-int8"):
        worker.breakdown(1)


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < session(eager).peak_bytes() < 1e12

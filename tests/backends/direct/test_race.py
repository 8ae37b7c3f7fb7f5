"""Turns under noise: the least time counts, hopeless ones leave, and the end comes early."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from quantfx.backends.direct.tune_routes import ROUNDS, race


class Noisy:
    """Runs that take their time on a clock of their own, and at random up to five times that."""

    def __init__(self, seed: int = 0, **seconds: float) -> None:
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self.runs = {name: self._run(name, each) for name, each in seconds.items()}

    def clock(self) -> float:
        return self.now

    def _run(self, name: str, seconds: float) -> Callable[[], object]:
        def run() -> None:
            self.counts[name] += 1
            disturbed = self._random.random() < 0.5
            self.now += seconds * (1 + 4 * self._random.random() * disturbed)

        return run


def test_the_least_times_are_found_under_noise() -> None:
    ended = 0
    for seed in range(200):
        noisy = Noisy(seed, a=1.0, b=0.9, c=1.3)
        least = race(noisy.runs, 1e9, noisy.clock)
        assert least == pytest.approx({"a": 1.0, "b": 0.9, "c": 1.3}, rel=0.02), seed
        ended += max(noisy.counts.values()) < ROUNDS  # when nothing got better
    assert ended == 200


def test_a_disturbed_first_call_decides_nothing() -> None:
    for name in ("a", "b"):
        noisy = Noisy(a=1.0, b=1.0)
        run, calls = noisy.runs[name], itertools.count()

        def disturbed(run: Any = run, calls: Any = calls, noisy: Noisy = noisy) -> None:
            run()
            noisy.now += 100.0 * (next(calls) in (1, 2))  # the first two that are timed

        noisy.runs[name] = disturbed
        least = race(noisy.runs, 1e9, noisy.clock)
        assert least[name] < 5.1, name


def test_what_is_hopeless_leaves() -> None:
    noisy = Noisy(a=1.0, b=1.1, c=50.0)
    least = race(noisy.runs, 1e9, noisy.clock)
    assert noisy.counts["c"] == 1 + 3  # untimed, and in turn: none in the end
    assert least["c"] > 49.9
    assert noisy.counts["a"] > 10


def test_it_ends_in_time_with_three_rounds_at_least() -> None:
    noisy = Noisy(a=1.0, b=1.1)
    race(noisy.runs, 0.0, noisy.clock)
    assert noisy.counts == {"a": 4, "b": 7}  # three more of what is slower
    noisy = Noisy(a=1.0, b=1.1)
    race(noisy.runs, 30.0, noisy.clock)
    assert noisy.now < 50.0

"""Turns under noise: the least time counts, hopeless ones leave, and the end comes early."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from quantfx.backends.direct.tune_routes import ROUNDS, race


class Noisy:
    """Runs that take their time on a clock of their own, and at random up to five times that."""

    def __init__(self, **seconds: float) -> None:
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self._random = random.Random(0)
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
    noisy = Noisy(a=1.0, b=0.9, c=1.3)
    least = race(noisy.runs, 1e9, noisy.clock)
    assert {name: round(each, 9) for name, each in least.items()} == {"a": 1.0, "b": 0.9, "c": 1.3}
    assert max(noisy.counts.values()) < ROUNDS  # it ended when nothing got better


def test_what_is_hopeless_leaves() -> None:
    noisy = Noisy(a=1.0, b=1.1, c=50.0)
    least = race(noisy.runs, 1e9, noisy.clock)
    assert noisy.counts["c"] == 2  # one of them untimed
    assert least["c"] > 49.9
    assert noisy.counts["a"] > 10


def test_it_ends_in_time_with_three_rounds_at_least() -> None:
    noisy = Noisy(a=1.0, b=1.1)
    race(noisy.runs, 0.0, noisy.clock)
    assert noisy.counts == {"a": 4, "b": 4}
    noisy = Noisy(a=1.0, b=1.1)
    race(noisy.runs, 30.0, noisy.clock)
    assert noisy.now < 40.0

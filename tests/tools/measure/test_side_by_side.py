from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from quantfx.tools.measure.side_by_side import Ratio, ratio


@dataclass
class FakeTime:
    """A clock that only calls move on, and the order of the calls."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a callable that takes the given times in turn, the last one for good."""
        left = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_ratio_is_baseline_over_candidate() -> None:
    clock = FakeTime()
    measured = ratio(clock.work("slow", 3.0), clock.work("fast", 1.5), rounds=3, clock=clock)
    assert measured == Ratio(2.0, 2.0, 2.0)
    assert str(measured) == "2.00x (2.00 to 2.00)"


def test_warm_up_is_not_measured_and_turns_alternate() -> None:
    clock = FakeTime()
    baseline, candidate = clock.work("b", 100.0, 1.0), clock.work("c", 1.0)
    measured = ratio(baseline, candidate, rounds=2, calls=2, warmup=1, clock=clock)
    assert measured == Ratio(1.0, 1.0, 1.0)
    assert "".join(clock.calls) == "bc" + "bbcc" + "ccbb"


def test_median_and_quartiles_are_over_rounds() -> None:
    clock = FakeTime()
    baseline, candidate = clock.work("b", 1.0, 4.0, 90.0, 3.0, 2.0), clock.work("c", 1.0)
    measured = ratio(baseline, candidate, rounds=5, calls=1, warmup=0, clock=clock)
    assert measured == Ratio(3.0, 2.0, 4.0)


def test_one_round_is_its_own_range() -> None:
    clock = FakeTime()
    measured = ratio(clock.work("b", 2.0), clock.work("c", 1.0), rounds=1, clock=clock)
    assert measured == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("rounds", "calls"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_an_error(rounds: int, calls: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ratio(lambda: None, lambda: None, rounds=rounds, calls=calls)


def test_a_real_clock_sees_the_difference() -> None:
    measured = ratio(lambda: sum(range(200_000)), lambda: sum(range(2_000)), rounds=3)
    assert measured.low > 5

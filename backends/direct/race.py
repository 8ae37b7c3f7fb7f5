"""Which of several ways is the fastest, on a machine that does other things as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# Rounds at most, in a row without a better time, and at least: one disturbance decides nothing.
ROUNDS = 60
_QUIET = 10
_FEW = 3
# A better time is less than so much of the least; what takes so many times as long as the least is
# hopeless: at first, and after some rounds.
_BETTER = 0.98
_HOPELESS_AT_FIRST, _HOPELESS = 4.0, 2.0

Clock = Callable[[], float]


def race(
    runs: Mapping[str, Callable[[], object]], until: float, clock: Clock = time.monotonic
) -> dict[str, float]:
    """Return the least seconds of a call of each, which take turns.

    It ends where ten rounds brought no better time; what takes four times as long as the fastest
    runs no more, nor does what takes twice as long after three rounds.

    Args:
        runs: By name.
        until: When to stop, by ``clock``; each has three timed calls at least.
        clock: Seconds.
    """
    for run in runs.values():
        run()  # packs weights, allocates
    least = dict.fromkeys(runs, float("inf"))
    racing, quiet = list(runs), 0
    for turn in range(ROUNDS):
        better = False
        for name in racing:
            if turn >= _FEW and clock() > until:
                return least
            start = clock()
            runs[name]()
            spent = clock() - start
            better |= spent < _BETTER * least[name]
            least[name] = min(spent, least[name])
        quiet = 0 if better else quiet + 1
        hopeless = (_HOPELESS if turn + 1 >= _FEW else _HOPELESS_AT_FIRST) * min(least.values())
        racing = [name for name in racing if least[name] < hopeless]
        if quiet >= _QUIET or len(racing) == 1:
            return least
    return least

"""Work of several processes: all get all of it, and all hear of a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from quantfx.accuracy.ranks import Ranks
from tests.two_processes import run_two


def test_one_process_does_all_and_raises_as_it_is() -> None:
    ranks = Ranks()
    assert ranks.map(lambda each: each * 2, [1, 2, 3]) == [2, 4, 6]
    assert ranks.all_do(lambda: 5) == [5]
    assert ranks.agree(7) == 7
    with pytest.raises(ZeroDivisionError):
        ranks.together(lambda: 1 // 0)


def work(rank: int, folder: str) -> None:
    ranks = Ranks(distributed.group.WORLD)
    asked: list[Callable[[], Any]] = [
        lambda: ranks.map(lambda each: (each, rank), [1, 2, 3]),
        lambda: ranks.map(lambda each: 6 // (each - 2), [1, 2, 3]),
        lambda: ranks.together(lambda: 1 // rank),
        lambda: ranks.all_do(lambda: rank),
        lambda: ranks.agree(rank),
    ]
    told: list[Any] = []
    for ask in asked:
        try:
            told.append(ask())
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    (Path(folder) / f"{rank}.json").write_text(json.dumps(told))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_two_processes_share_the_work_and_hear_of_each_other(tmp_path: Path) -> None:
    run_two(work, str(tmp_path))
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one[0] == other[0] == [[1, 0], [2, 1], [3, 0]]
    own = "ZeroDivisionError: integer division or modulo by zero"
    heard = "CalibrationError: rank {} of 2 failed: integer division or modulo by zero"
    assert (one[1], other[1]) == (heard.format(1), own)
    assert (one[2], other[2]) == (own, heard.format(0))
    assert one[3] == other[3] == [0, 1]
    assert one[4] == other[4] == 0

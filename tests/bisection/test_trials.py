"""What is kept of a trial that failed."""

from __future__ import annotations

import gc
import weakref
from typing import cast

from torch import nn

from quantfx.bisection.ranges import Ranges
from quantfx.bisection.trials import Subject, Trials, error_kind
from quantfx.passes.errors import PassError


class Fails:
    """Makes a module, and raises twice."""

    def __init__(self) -> None:
        self.made: weakref.ref[nn.Module] | None = None

    def holds(self, ranges: Ranges) -> bool:
        module = nn.Linear(2, 2)
        self.made = weakref.ref(module)
        try:
            if module.training:
                raise KeyError("a fault")
        except KeyError as error:
            raise PassError("failed", rule="pass-failed", site="fold") from error
        return True


def test_the_graphs_of_a_failed_trial_are_not_kept() -> None:
    subject = Fails()
    trials = Trials(cast(Subject, subject), Ranges(None))
    verdict = trials.run(())
    assert isinstance(verdict.error, PassError)
    gc.collect()
    assert subject.made is not None
    assert subject.made() is None


def test_one_fault_is_of_one_pass_and_one_cause() -> None:
    def raised(site: str, cause: Exception) -> PassError:
        error = PassError("failed", rule="pass-failed", site=site)
        error.__cause__ = cause
        return error

    kind = error_kind(raised("fold", KeyError("a")))
    assert kind == error_kind(raised("fold", KeyError("b")))
    assert kind != error_kind(raised("lower", KeyError("a")))
    assert kind != error_kind(raised("fold", ValueError("a")))

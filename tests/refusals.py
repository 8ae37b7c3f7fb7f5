"""Checks of what quantfx refuses or warns of, by the fields of an exception and not by its prose."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from quantfx.patterns.errors import QuantfxError, QuantfxWarning


@contextmanager
def refused(
    rule: str,
    kind: type[BaseException] = QuantfxError,
    *,
    site: str | None = None,
    fix: str = "",
    says: str = "",
) -> Generator[pytest.ExceptionInfo[BaseException]]:
    """Expect an error of quantfx, also where torch carries it as its ``inner_exception``.

    Args:
        rule: Its rule; in a table also ``rule: site``.
        kind: What is raised.
        site: Its site; of a path or a place in a place the last part is enough, and of a function
            its name.
        fix: Something that the fix must name.
        says: Expression for a name or number that the text must hold besides.
    """
    with pytest.raises(kind) as caught:
        yield caught
    error = getattr(caught.value, "inner_exception", caught.value)
    assert isinstance(error, QuantfxError), repr(error)
    problem = _differs(error, rule, site, fix, says)
    assert not problem, problem


@contextmanager
def warned(
    rule: str, *, site: str | None = None, fix: str = "", says: str = ""
) -> Generator[pytest.WarningsRecorder]:
    """Expect a warning of quantfx, with the fields that ``refused`` describes."""
    with pytest.warns(QuantfxWarning) as caught:
        yield caught
    ours = [each.message for each in caught if isinstance(each.message, QuantfxWarning)]
    problems = [_differs(each, rule, site, fix, says) for each in ours]
    assert "" in problems, problems
    # As ``pytest.warns`` does with what does not match: the next check around may expect it.
    for each, problem in zip(ours, problems, strict=True):
        if problem:
            warnings.warn(each, stacklevel=3)


def _differs(
    told: QuantfxError | QuantfxWarning, rule: str, site: str | None, fix: str, says: str
) -> str:
    """Return how an exception is another one than is expected; empty if it is not."""
    rule, colon, rest = rule.partition(": ")
    site = rest if colon else site
    expected = f"{rule=}, {site=}, {fix=}, {says=}"
    whole = str(told.site)
    same_site = site is None or whole == site or whole.endswith((f"/{site}", f": {site}"))
    same_site |= whole.startswith(f"{site} (/")
    same = told.rule == rule and same_site and fix in told.fix
    if same and re.search(says, str(told), re.DOTALL):
        return ""
    return f"expected {expected}; got rule={told.rule!r}, site={told.site!r}, text: {told}"

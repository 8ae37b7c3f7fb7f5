"""What is said of prepared plans: that they compute, or why there are none."""

from __future__ import annotations

import pytest

from quantfx.backends.direct.runtime import library
from quantfx.tools.doctor import kernels
from quantfx.tools.doctor.kernels import direct_checks


def test_the_runtime_computes_or_says_why_not() -> None:
    (check,) = direct_checks()
    assert check.status == ("note" if library.missing() else "ok")
    assert check.found


def test_a_missing_compiler_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = library.Runtime(reason="there is no C++ compiler: install g++")
    monkeypatch.setattr(kernels, "runtime", lambda: nothing)
    (check,) = direct_checks()
    assert (check.status, check.found) == ("note", nothing.reason)
    assert "onednn" in check.fix or "operators" in check.fix

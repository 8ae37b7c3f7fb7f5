"""Prepared plans, where they are there."""

from __future__ import annotations

import pytest

from quantfx.backends.direct.runtime.library import runtime


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``kernels="auto"`` take plans; skip the test, with the reason, where there are none."""
    if runtime().reason:
        pytest.skip(runtime().reason)
    monkeypatch.setenv("QUANTFX_KERNELS", "auto")

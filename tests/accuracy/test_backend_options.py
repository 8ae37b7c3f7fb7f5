"""Options put into a backend are those that ``backends.get`` takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quantfx import backends
from quantfx.accuracy.backend_options import REPAIR, SMOOTH, offered, with_options


@pytest.mark.parametrize("options", [(), (REPAIR,), (SMOOTH,), (REPAIR, SMOOTH)])
def test_the_backend_is_that_of_its_name_with_the_options(options: Any) -> None:
    plain = backends.get("x86", target="avx2", kernels="onednn")
    named: dict[str, Any] = dict(options)
    expected = backends.get("x86", target="avx2", kernels="onednn", **named)
    assert with_options(plain, named) == expected


def test_what_a_backend_has_or_does_not_know_is_not_offered() -> None:
    x86 = backends.get("x86", target="avx2")
    assert offered(x86, linears=True) == ((), (REPAIR,), (SMOOTH,), (REPAIR, SMOOTH))
    assert offered(x86, linears=False) == ((), (REPAIR,))
    repaired = backends.get("x86", target="avx2", repair=True)
    assert offered(repaired, linears=True) == ((), (SMOOTH,))
    assert offered(backends.get("native"), linears=True) == ((),)
    assert offered(replace(x86, name="mine"), linears=True) == ((),)

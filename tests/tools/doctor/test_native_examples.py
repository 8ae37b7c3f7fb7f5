"""Every template of the native backend has an example that reaches its kernel."""

from __future__ import annotations

import pytest

from quantfx import backends
from quantfx.tools.doctor.native_examples import NATIVE_EXAMPLES
from quantfx.tools.doctor.template_examples import EXAMPLES
from quantfx.tools.doctor.templates import examine

NATIVE = backends.get("native")


def test_no_example_stands_for_nothing() -> None:
    assert set(NATIVE_EXAMPLES) <= set(NATIVE.recipe.patterns.names)
    assert set(NATIVE.recipe.patterns.names) <= {*EXAMPLES, *NATIVE_EXAMPLES}


@pytest.mark.parametrize("name", NATIVE.recipe.patterns.names)
def test_it_reaches_what_the_template_promises(name: str) -> None:
    row = examine(NATIVE, name, compiles=True)
    assert (row.status, row.reason) == ("ok", "")
    assert row.compiled is None  # native graphs are not for a compiler

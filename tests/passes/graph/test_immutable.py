"""Passes, selectors and checks cannot be changed, with fields of their own and without."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from quantfx.checks import runs
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.config.selectors import Everything


@pytest.mark.parametrize("value", [RemoveDeadCode(), CheckConfig(), Everything(), runs()])
def test_they_are_values(value: object) -> None:
    name = next(iter(getattr(value, "__dataclass_fields__", {})), "name")
    for each in (name, "another"):
        with pytest.raises(FrozenInstanceError):
            setattr(value, each, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(value, each)

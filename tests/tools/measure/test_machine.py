from __future__ import annotations

from datetime import datetime

import pytest
import torch

from quantfx.backends.checks import targets
from quantfx.tools.measure.machine import this_machine


def test_the_facts_are_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machine = this_machine()
    assert (machine.target, machine.isa_cap) == (targets.host().name, "AVX2") == ("avx2", "AVX2")
    # A package's version: that of a build for CUDA says nothing of it, its own does.
    assert machine.versions["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert machine.versions["quantfx"] is not None
    assert machine.cpu
    assert "avx2" in machine.isa
    assert datetime.fromisoformat(machine.date).tzinfo is not None

"""Both routes of ``doctor --compile``; what torch's own patterns find is that of torch 2.13."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from quantfx.backends.inductor.torch_internals import has_qdq_patterns
from quantfx.tools.doctor.run import run


@pytest.mark.skipif(
    not has_qdq_patterns(), reason="torch 2.13 is the last to have q/dq patterns in Inductor"
)
def test_a_sum_that_compiling_takes_in_and_what_torchs_patterns_miss() -> None:
    stream = StringIO()
    console = Console(file=stream, width=80)
    report = run(compiles=True, templates=["conv2d_add", "conv3d"], console=console)
    added, deep = report.templates
    kernels = (added.lowered, added.compiled, added.by_patterns)
    assert kernels == ("qconv_pointwise", *["qconv2d_pointwise.binary"] * 2)
    assert (deep.compiled, deep.by_patterns, deep.status) == ("qconv_pointwise", "", "note")
    assert "conv3d: torch's own patterns do not find it" in stream.getvalue()

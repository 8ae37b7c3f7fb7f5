"""``doctor --compile``; how Inductor fuses a sum is that of torch 2.13."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from quantfx.tools.doctor.run import run


def test_a_sum_that_compiling_takes_in() -> None:
    console = Console(file=StringIO(), width=80)
    report = run(compiles=True, templates=["conv2d_add", "conv3d"], console=console)
    added, deep = report.templates
    assert (added.lowered, added.compiled) == ("qconv_pointwise", "qconv2d_pointwise.binary")
    assert (deep.compiled, deep.status) == ("qconv_pointwise", "ok")

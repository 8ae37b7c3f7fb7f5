"""A benchmark that nobody ran, for the tests of what is made of one."""

from __future__ import annotations

import math

from quantfx.tools.bench.accuracy import Accuracy
from quantfx.tools.bench.breakdown import Breakdown, SiteTime
from quantfx.tools.bench.results import BenchReport, Comparison, Measured, Missed, Settings
from quantfx.tools.measure.machine import Machine

MACHINE = Machine(
    cpu="Some <CPU>",
    cores=2,
    isa=("amx_int8", "avx512_vnni"),
    target="amx",
    isa_cap=None,
    system="Linux",
    versions={"torch": "2.13.0", "openvino": None},
    date="2026-01-02T03:04:05+00:00",
)
SETTINGS = Settings(rounds=3, calls=5, warmup=5, threads=2, batch=1)
BREAKDOWN = Breakdown(
    (
        SiteTime("conv2d", "qconv_pointwise", 0.5, 0.25),
        SiteTime("linear", "qlinear_pointwise", 0.125, 0.125),
    ),
    whole_ms=2.0,
)
PLANS = Breakdown(
    (
        SiteTime("conv2d", "jit:avx2", 0.5, 0.0),
        SiteTime("relu", "lookup", 0.0, 0.0, 0.125),
        SiteTime("call of plan 0", "direct_region", 0.0, 0.0625),
    ),
    whole_ms=1.0,
)


def measured(engine: str, *seconds: float, sqnr_db: float = 20.0) -> Measured:
    return Measured(engine, f"title of {engine}", 1.5, Accuracy(sqnr_db, 0.75), 10**9, seconds)


ROWS = (
    measured("fp32", 0.004, 0.008, 0.006, sqnr_db=math.inf),
    Missed("bf16", "title of bf16", "skipped: no bfloat16"),
    measured("quantfx", 0.002, 0.002, 0.002),
)


def sample_report() -> BenchReport:
    broken_down = {"quantfx-onednn": BREAKDOWN, "quantfx": PLANS}
    comparisons = Comparison("net & co", ROWS, broken_down), Comparison("bare", ROWS[1:])
    return BenchReport(MACHINE, SETTINGS, comparisons)

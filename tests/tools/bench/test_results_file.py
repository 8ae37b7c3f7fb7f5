from __future__ import annotations

import json

import pytest

from quantfx.tools.bench.results_file import to_json
from tests.tools.bench.sample import sample_report


def test_everything_is_in_it() -> None:
    data = json.loads(to_json(sample_report()))
    assert set(data) == {"format", "machine", "settings", "baseline", "notes", "models"}
    assert data["machine"]["target"] == "amx"
    assert data["machine"]["versions"] == {"torch": "2.13.0", "openvino": None}
    assert data["settings"]["threads"] == 2
    rows = data["models"][0]["rows"]
    assert [row["engine"] for row in rows] == ["fp32", "bf16", "quantfx"]
    assert rows[2] == {
        "engine": "quantfx",
        "title": "title of quantfx",
        "missed": None,
        "speedup": {"median": 3.0, "low": 2.5, "high": 3.5},
        "milliseconds": {"median": 2.0, "min": 2.0},
        "build_seconds": 1.5,
        "peak_bytes": 10**9,
        "accuracy": {"sqnr_db": 20.0, "top1_agreement": 0.75},
        "round_seconds": [0.002, 0.002, 0.002],
    }


def test_a_missing_engine_has_its_reason() -> None:
    row = json.loads(to_json(sample_report()))["models"][0]["rows"][1]
    assert row == {"engine": "bf16", "title": "title of bf16", "missed": "skipped: no bfloat16"}


def test_what_is_not_finite_is_text_and_what_is_missing_is_null() -> None:
    first, second = json.loads(to_json(sample_report()))["models"]
    assert first["rows"][0]["accuracy"]["sqnr_db"] == "inf"
    assert second["rows"][1]["speedup"] is None
    assert second["breakdowns"] == {}


def test_a_breakdown_sums_up() -> None:
    breakdown = json.loads(to_json(sample_report()))["models"][0]["breakdowns"]["quantfx-onednn"]
    parts = (breakdown[f"{part}_ms"] for part in ("kernel", "loop", "overhead", "rest"))
    assert sum(parts) == pytest.approx(breakdown["whole_ms"])
    assert breakdown["sites"][0] == {
        "site": "conv2d",
        "kernel": "qconv_pointwise",
        "kernel_ms": 0.5,
        "overhead_ms": 0.25,
        "loop_ms": 0.0,
    }

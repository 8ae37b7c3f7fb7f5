from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import quantfx
from quantfx.passes.report.report import Report
from tests import unchecked
from tests.foreign_operators import Experts
from tests.models.small import mlp

X = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


def quantize(model: nn.Module, x: torch.Tensor) -> quantfx.Result:
    return unchecked.quantize(model.eval(), (x,))


@pytest.fixture(scope="module")
def experts() -> quantfx.Result:
    return quantize(Experts(), X)


def test_what_stays_float_comes_first(experts: quantfx.Result) -> None:
    lines = " ".join(str(experts.report).split())
    assert lines.startswith(
        "most of the model stays float: 94% of the weight bytes. "
        "Causes: quantfx_tests.experts.default x1 (94% of the weight bytes"
    )
    assert "not an operator of torch's" in " ".join(lines.replace("│", " ").split())
    full = " ".join(experts.report.text(full=True).split())
    assert "float, no template: quantfx_tests.experts.default x1" in full
    assert "multiply-accumulates not known of quantfx_tests.experts.default x1" in lines


def test_a_quantized_model_starts_with_its_backend() -> None:
    report = quantize(mlp(), torch.randn(4, 8)).report
    assert report.headline == ""
    assert str(report).startswith("backend x86")
    assert report.balance.float_macs == 0


def test_the_report_as_data_and_back(experts: quantfx.Result, tmp_path: Path) -> None:
    report = experts.report
    data = json.loads(report.to_json())
    assert data["headline"] == report.headline
    assert data["uncovered"] == {"quantfx_tests.experts.default": 1}
    assert Report.from_dict(data) == report
    experts.save(tmp_path / "model.quantfx")
    loaded = quantfx.load(tmp_path / "model.quantfx").report
    assert (loaded.headline, loaded.work, loaded.balance) == (
        report.headline,
        report.work,
        report.balance,
    )


def test_what_compiling_lost_stays_float() -> None:
    report = quantize(mlp(), torch.randn(4, 8)).report
    sites = tuple(replace(site, compiled="", reason="gone") for site in report.sites)
    lost = report.with_compiled(sites)
    assert lost.headline.startswith("most of the model stays float: 100%")
    assert "gone" in lost.headline

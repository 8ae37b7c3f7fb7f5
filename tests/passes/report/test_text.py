from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import cli
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import RuleRemark, ScaleRemark
from quantfx.passes.report.outcome import SiteOutcome
from quantfx.passes.report.report import PassTime, Report, SkippedSite, rows_of
from quantfx.passes.report.work import OperatorWork
from tests import unchecked

_SCREEN = 40  # lines


def words(text: str) -> str:
    """The text without the lines of tables, so that folded cells read on."""
    return " ".join(text.replace("│", " ").split())


def large_report() -> Report:
    """A report with 50 reasons, of which two concern most of the model."""
    sites = tuple(
        SiteOutcome(
            Site("", f"linear_{i}"),
            "",
            "linear",
            mode="static",
            reach="kernel",
            converted=True,
            kernel="qlinear",
        )
        for i in range(30)
    )
    work = [
        OperatorWork(
            each.site, "aten.linear.default", macs=10**6, weight_bytes=4 * 10**6, planned=True
        )
        for each in sites
    ]
    work.append(
        OperatorWork(
            Site("", "embedding"),
            "aten.embedding.default",
            macs=0,
            weight_bytes=10**8,
            planned=False,
            reason="no",
        )
    )
    work += [
        OperatorWork(
            Site("", f"bmm_{i}"),
            "aten.bmm.default",
            macs=10**6,
            weight_bytes=0,
            planned=False,
            reason="no template",
        )
        for i in range(10)
    ]
    work += [
        OperatorWork(
            Site("", f"mul_{i}"),
            "aten.mul.Tensor",
            macs=0,
            weight_bytes=40,
            planned=False,
            reason=f"reason {i} of it",
        )
        for i in range(50)
    ]
    skipped = [
        SkippedSite(f"mul_{i}", "aten.mul.Tensor", f"mul_{i}.other is number {i % 7}")
        for i in range(50)
    ]
    skipped += [SkippedSite("embedding", "aten.embedding.default", "no")]
    uncovered = {"aten.reshape.default": 90, "aten.bmm.default": 10, "aten.erf.default": 3}
    passes = tuple(PassTime(f"pass-{i}", 0.01 * i, {}) for i in range(21))
    scales = tuple(ScaleRemark(f"tensor_{i}", "it is zero") for i in range(20))
    return Report(
        backend="x86",
        target="avx2",
        policy="bounded",
        rows=rows_of(sites),
        sites=sites,
        skipped=tuple(skipped),
        uncovered=uncovered,
        work=tuple(work),
        passes=passes,
        float_bytes=4 * 10**8,
        quantized_bytes=10**8,
        scales=scales,
        unused_rules=(RuleRemark("module='x'", "selects nothing"),),
    )


def test_a_large_report_is_one_screen_and_starts_with_what_costs_most() -> None:
    text = large_report().text()
    assert len(text.splitlines()) <= _SCREEN
    said = words(text)
    assert "quantized: 75% of 40.0 M multiply-accumulates, 55% of 209.8 MiB of weights" in said
    assert "linear 30 30 30 - 75% 55% qlinear x30" in said
    assert said.index("embedding 1 - 45% no") < said.index("bmm 10 25% - no template")
    assert "others 50 - <1% smaller ones, for 50 reasons: see report.text(full=True)" in said
    assert "module='x': selects nothing" in said
    assert "float, without weights or products: erf x3, 90 views and copies" in said
    assert "and 14 more" in said
    assert "passes: 2.1 s, pass-20 0.2 of it" in said
    assert "pass-3 " not in said


def test_the_full_report_has_all_of_it_by_reason() -> None:
    report = large_report()
    said = words(report.text(full=True))
    assert said.count("….other") == 7
    for name in [*(f"mul_{i}" for i in range(50)), *(f"tensor_{i}" for i in range(20)), "pass-3 "]:
        assert name in said, name
    assert "aten.bmm.default x10, aten.erf.default x3" in said
    assert "embedding 1 - 45% no" in said
    assert "reason 49 of it" in said
    assert "report.text(full=True)" not in said
    assert str(report) == report.text()


def test_a_reason_of_one_operator_is_not_shortened() -> None:
    skipped = (
        SkippedSite("mul", "aten.mul.Tensor", "mul.other is 0.25, not a tensor"),
        SkippedSite("add", "aten.add.Tensor", "add.other is 0.5, not a tensor"),
        SkippedSite("add_1", "aten.add.Tensor", "add_1.other is 0.5, not a tensor"),
    )
    said = words(replace(large_report(), skipped=skipped).text(full=True))
    assert "aten.mul.Tensor 1 mul.other is 0.25, not a tensor mul" in said
    assert "aten.add.Tensor 2 ….other is 0.5, not a tensor add, add_1" in said


@pytest.fixture(scope="module")
def transformer() -> quantfx.Result:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 32)
    model = nn.Transformer(32, 4, 1, 1, 64, batch_first=True).eval()
    config = quantfx.Config().module("encoder.layers.0.linear1", None)
    return unchecked.quantize(model, (x, x), config=config, backend="x86")


def test_a_transformer(transformer: quantfx.Result) -> None:
    report = transformer.report
    said = words(str(report))
    assert len(str(report).splitlines()) <= _SCREEN
    kept = next(each for each in report.work if "kept float" in each.reason)
    share = f"{(kept.macs or 0) / report.balance.macs:.0%}"
    assert f"linear 1 {share}" in said
    assert "change that rule of the config" in said
    assert "scaled_dot_product_attention 3 " in said
    assert {each.op for each in report.skipped} >= {"aten.linear.default"}


def test_the_command_line_reports_a_saved_model(
    transformer: quantfx.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformer.save(tmp_path / "model.quantfx")
    file = str(tmp_path / "model.quantfx")
    assert cli.main(["report", file]) == 0
    short = capsys.readouterr().out
    assert "report.text(full=True)" in words(short)
    assert cli.main(["report", file, "--full", "--json", str(tmp_path / "report.json")]) == 0
    assert "passes (ms)" in capsys.readouterr().out
    assert '"skipped"' in (tmp_path / "report.json").read_text()
    assert cli.main(["report", str(tmp_path / "none")]) == 1


class Unknown(nn.Module):
    """A product whose work nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return torch.einsum("ij,jk,kl->il", y, y, y)


def test_work_that_is_not_known_is_said_to_be() -> None:
    x = torch.randn(8, 8)
    result = unchecked.quantize(Unknown().eval(), (x,))
    assert "unknown" in str(result.report)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import cli
from quantfx.passes.errors import CaptureError, ConfigError, ContractError
from tests.export_cases import Net
from tests.models.small import mlp
from tests.refusals import refused, warned

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_quantize_reports_what_it_did() -> None:
    model = mlp()
    result = quantfx.quantize(model, (X,), calibration=[X])
    report = result.report
    assert (report.planned, report.converted, report.lowered, report.compiled) == (2, 2, 2, None)
    assert report.target == quantfx.backends.checks.targets.host().name
    assert report.quantized_bytes < report.float_bytes
    assert [row.kind for row in report.rows] == ["linear"]
    assert {"annotate-linear", "insert-qdq"} <= {each.name for each in report.passes}
    text = str(report)
    assert "linear" in text
    assert report.policy in " ".join(text.split())
    assert '"kind": "linear"' in report.to_json()
    with torch.no_grad():
        torch.testing.assert_close(result.quantized(X), model(X), atol=0.05, rtol=0.05)


def test_visible_steps_equal_the_one_call() -> None:
    backend = quantfx.backends.get("x86")
    prepared = backend.prepare(quantfx.capture(mlp(), (X,)))
    quantfx.calibrate(prepared, [X])
    by_steps = backend.convert(prepared)
    result = quantfx.quantize(mlp(), (X,), calibration=[X])
    assert str(by_steps.graph) == str(result.quantized.graph)
    torch.testing.assert_close(by_steps(X), result.quantized(X), rtol=0, atol=0)


def test_nothing_to_quantize_is_an_error_with_the_reasons() -> None:
    model = Net(lambda x: (x * 2.0).softmax(-1)).eval()
    with pytest.raises(ContractError) as error:
        quantfx.quantize(model, (X,), calibration=[X])
    message = str(error.value)
    assert "nothing to quantize: no template of 'x86' matches this graph" in message
    assert "mul (aten.mul.Tensor): mul.other is 2.0, not a tensor" in message
    assert "aten.softmax.int x1" in message
    assert "strict=False" in message
    result = quantfx.quantize(model, (X,), calibration=[X], strict=False)
    torch.testing.assert_close(result.quantized(X), model(X))


def test_training_models_are_refused() -> None:
    with refused("captured-mode", CaptureError, fix="model.eval"):
        quantfx.quantize(mlp().train(), (X,), calibration=[X])


def test_nested_outputs_and_keyword_inputs_keep_their_form() -> None:
    class Dictionary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
            y = self.linear(x)
            return {"both": (y, y * scale)}

    model = Dictionary().eval()
    batch: dict[str, Any] = {"x": X, "scale": torch.rand(4, 8)}
    result = quantfx.quantize(
        model, (X,), example_kwargs={"scale": batch["scale"]}, calibration=[batch]
    )
    outputs = result.quantized(X, scale=batch["scale"])
    assert set(outputs) == {"both"}
    with torch.no_grad():
        torch.testing.assert_close(outputs["both"][0], model.linear(X), atol=0.05, rtol=0.05)
    assert result.module(X, scale=batch["scale"])["both"][1].shape == (4, 8)


def test_skipped_operators_have_a_reason() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(torch.cat([self.b(x), x], 0)).softmax(-1)

    report = quantfx.quantize(Halves().eval(), (X,), calibration=[X]).report
    [skipped] = report.skipped
    assert skipped.site == "cat"
    assert skipped.reason == "its input x is not the output of a quantized pattern"
    assert report.uncovered == {"aten.softmax.int": 1}


def test_a_config_in_one_line_and_from_a_file(tmp_path: Path) -> None:
    config = quantfx.Config("static").module("0", None)
    (tmp_path / "mine.toml").write_text(config.to_toml(), encoding="utf-8")
    for given in (config, tmp_path / "mine.toml"):
        result = quantfx.quantize(mlp(), (X,), calibration=[X], config=given)
        assert result.report.planned == 1
        assert result.report.skipped[0].reason == "kept float: rule module='0'"
    with refused("unused-rule", ConfigError, site="module='1O'"):
        quantfx.quantize(mlp(), (X,), calibration=[X], config=config.module("1O", None))
    with warned("unused-rule", site="module='1O'"):
        loose = quantfx.quantize(
            mlp(), (X,), calibration=[X], config=config.module("1O", None), strict=False
        )
    assert loose.report.unused_rules[0].rule == "module='1O'"


def test_draw_writes_a_picture(tmp_path: Path) -> None:
    assert quantfx.draw(quantfx.capture(mlp(), (X,)), tmp_path / "mlp.dot").read_text()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patterns", "--draw", str(tmp_path / "patterns.dot")]) == 0
    assert "conv2d_add" in (tmp_path / "patterns.dot").read_text()
    listed = capsys.readouterr().out
    assert "weight-only" in listed
    assert "conv_transpose2d" in listed
    assert cli.main(["backends", "--target", "avx2"]) == 0
    listed = capsys.readouterr().out
    assert "pair-bounded" in listed
    assert "static, dynamic, fp16, weight-only" in listed
    assert cli.main(["backends", "--target", "avx3"]) == 1
    assert "did you mean 'avx2'" in capsys.readouterr().err

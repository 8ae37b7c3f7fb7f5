"""A backend from outside: one TOML file and less than 20 lines of Python, nothing of ours touched."""

from __future__ import annotations

import ast
import inspect
from collections import OrderedDict

import torch
import torch.nn.functional as F
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

import quantfx
from docs.examples.extend import npu
from docs.examples.extend.npu import NPU
from quantfx.backends import NAMES
from quantfx.patterns.linter import lint
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network(norm: bool = False) -> nn.Sequential:
    """conv -> (batch norm) -> hardsigmoid -> linear -> relu6 -> linear without an activation."""

    def make() -> nn.Sequential:
        layers: dict[str, nn.Module] = {"conv": nn.Conv2d(3, 4, 3)}
        if norm:
            layers["norm"] = nn.BatchNorm2d(4)
        layers |= {"gate": nn.Hardsigmoid(), "flatten": nn.Flatten(), "hidden": nn.Linear(64, 8)}
        layers |= {"clip": nn.ReLU6(), "head": nn.Linear(8, 3)}
        return nn.Sequential(OrderedDict(layers))

    return seeded(make)


def quantize(norm: bool = False) -> quantfx.Result:
    model = network(norm)
    return unchecked.quantize(model, (X,), backend=NPU)


def test_it_takes_less_than_twenty_lines_of_python() -> None:
    """Counted without docstrings, comments, empty lines and trying it; no statement spans lines."""
    source, _, _ = inspect.getsource(npu).partition("if __name__")
    statements = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.stmt)]
    code = [n for n in statements if not isinstance(n, ast.Expr)]
    classes = [n for n in code if isinstance(n, ast.ClassDef)]
    assert all(n.lineno == n.end_lineno for n in code if n not in classes)
    decorators = sum(len(n.decorator_list) for n in classes)
    assert len(code) + decorators < 20
    assert "npu" not in NAMES


def test_its_templates_lint_and_its_pipeline_reads_back() -> None:
    assert lint(NPU.recipe.patterns) == ()
    text = str(NPU.prepare_pipeline)
    assert "annotate-npu" in text
    assert quantfx.Pipeline.parse(text) == NPU.prepare_pipeline


def test_the_report_counts_its_operators_and_says_why_one_stays_float() -> None:
    report = quantize().report
    assert (report.backend, report.policy) == ("npu", "made up")
    rows = {row.kind: (row.planned, row.converted) for row in report.rows}
    assert rows == {"conv2d": (1, 1), "linear": (1, 1)}
    [head] = report.skipped
    assert (head.site, head.op) == ("linear_1", "aten.linear.default")
    assert "not relu6" in head.reason
    assert report.uncovered == {"aten.flatten.using_ints": 1}


def reference(model: nn.Module, x: Tensor) -> Tensor:
    """What the network computes with u8 activations around 128 and s8 weights around 0."""

    def scale(t: Tensor) -> float:
        return max(float(t.abs().max()) / 127.5, 2**-12)

    def act(t: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(t, scale(t), 128, 0, 255)

    def weight(t: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(t, scale(t), 0, -128, 127)

    state = dict(model.named_parameters())
    y = F.conv2d(act(x), weight(state["conv.weight"]), state["conv.bias"])
    y = F.hardsigmoid(y).flatten(1)
    y = F.relu6(F.linear(act(y), weight(state["hidden.weight"]), state["hidden.bias"]))
    return F.linear(y, state["head.weight"], state["head.bias"])


def test_the_quantized_graph_computes_what_the_specs_say() -> None:
    result = quantize()
    with torch.no_grad():
        exact, expected, given = network()(X), reference(network(), X), result.quantized(X)
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-5)
    assert 1e-4 < float((given - exact).abs().max() / exact.abs().max()) < 0.1


def test_a_per_tensor_weight_may_come_from_a_folded_batch_norm() -> None:
    rows = {row.kind: row.converted for row in quantize(norm=True).report.rows}
    assert rows == {"conv2d": 1, "linear": 1}


def test_its_graph_is_drawn(graph_snapshot: SnapshotAssertion) -> None:
    assert quantize().quantized == graph_snapshot


def test_without_kernels_there_is_nothing_to_run() -> None:
    result = quantize()
    assert result.report.lowered is None
    for run in (result.compile, lambda: result.module):
        with refused("no-kernels", site="npu"):
            run()

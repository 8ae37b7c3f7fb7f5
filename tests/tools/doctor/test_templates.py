from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.onednn.family import OneDNN
from quantfx.backends.onednn.int8_layout import Int8Layout
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission
from quantfx.patterns.schema import resolve_op
from quantfx.result import Result
from quantfx.tools.doctor import templates as doctor_templates
from quantfx.tools.doctor.template_examples import EXAMPLES
from quantfx.tools.doctor.templates import TemplateRow, examine

HOST = backends.get("x86")


@pytest.mark.parametrize(
    ("name", "promised", "lowered"),
    [
        ("conv2d", "qconv_pointwise", "qconv_pointwise"),
        ("linear_add", "qlinear_pointwise.binary", "qlinear_pointwise"),
        ("cat", "int8 cat", "int8 cat"),
        ("avg_pool2d", "fused", "dq-op-q"),
    ],
)
def test_what_is_promised_and_what_it_is_lowered_to(name: str, promised: str, lowered: str) -> None:
    row = examine(HOST, name, compiles=False)
    assert row == TemplateRow(name, "static", False, promised, lowered)


def test_mode_and_request() -> None:
    assert examine(HOST, "linear_fp16", compiles=False).mode == "fp16"
    assert examine(HOST, "matmul", compiles=False).on_request


def test_xpu_is_lowered_and_never_run() -> None:
    xpu = backends.get("xpu")
    row = examine(xpu, "conv2d", compiles=True)
    assert (row.status, row.lowered, row.compiled) == ("ok", "qconv_pointwise", None)


def test_a_missed_kernel_has_its_reason() -> None:
    row = examine(replace(HOST, kernels=(Int8Layout(),)), "linear", compiles=True)
    assert (row.status, row.lowered, row.compiled) == ("problem", "", None)
    assert row.reason == "no kernel family of the backend has qlinear_pointwise"


@dataclass(frozen=True)
class Doubling(OneDNN):
    """Computes something else."""

    name: ClassVar[str] = "doubling"

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        emission = super().emit(candidate, editor)
        before = emission.stands_for
        add = resolve_op("aten.add.Tensor")
        twice = editor.call(add, (emission.node, emission.node), like=before, before=before)
        return replace(emission, node=twice)


def test_a_kernel_that_computes_something_else_is_a_problem() -> None:
    row = examine(replace(HOST, kernels=(Doubling(),)), "linear", compiles=False)
    assert row.status == "problem"
    assert row.reason == "qlinear_pointwise is off by 1.0e+00 of the largest magnitude"


def test_an_example_that_no_longer_matches_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXAMPLES, "linear_wide", EXAMPLES["linear"])
    row = examine(HOST, "linear_wide", compiles=False)
    assert row.status == "problem"
    assert row.reason == "no template of this name matches its example"


def test_an_exception_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(backend: Backend, name: str) -> Result:
        raise RuntimeError("torch has changed\nand more")

    monkeypatch.setattr(doctor_templates, "_quantize", broken)
    row = examine(HOST, "linear", compiles=False)
    assert (row.status, row.reason) == ("problem", "RuntimeError: torch has changed")


def test_what_does_not_compile_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Result, **options: object) -> object:
        raise RuntimeError("does not compile")

    monkeypatch.setattr(Result, "compile", fails)
    row = examine(HOST, "linear", compiles=True)
    assert (row.status, row.compiled) == ("problem", "")
    assert row.reason == "RuntimeError: does not compile"


@pytest.mark.skipif(bool(runtime().reason), reason=runtime().reason or "plans are there")
@pytest.mark.parametrize("name", ["conv2d_add", "max_pool2d", "conv_transpose"])
def test_prepared_plans_keep_every_promise(name: str) -> None:
    row = examine(backends.get("x86", kernels="direct"), name, compiles=False)
    assert (row.status, row.reason) == ("ok", "")
    assert row.lowered.startswith("direct.")

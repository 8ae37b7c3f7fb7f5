"""Every row of torch 2.13's native BackendConfig: what annotates it, and what it becomes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.ao.nn import qat as nnqat
from torch.ao.quantization import default_embedding_qat_qconfig

import quantfx
from quantfx import backends
from quantfx.backends.quantized.patterns import pattern_set
from quantfx.backends.quantized.rows import NativeRow, Outcome, native_variant
from quantfx.passes.errors import CaptureError
from quantfx.passes.quant.annotation import Annotation, annotation_of
from quantfx.passes.report.contract import planned_matches
from tests import unchecked
from tests.backends.native_models import model_of
from tests.refusals import refused

NATIVE, LEGACY = native_variant("native"), native_variant("legacy")
NATIVE_ROWS = [(row, each) for row in NATIVE.rows for each in row.outcomes(pattern_set(NATIVE))]
HALVES = [
    (row, each)
    for row in LEGACY.rows
    for each in row.outcomes(pattern_set(LEGACY))
    if each.dtype == "default_op_fp16"
]
# Rounding to 4 bits alone is of the order of a thirtieth of the largest value.
ERRORS = {"weight-only-4bit": 0.08, "static-fp16": 2e-3, "fp16": 2e-3}
STATIC_ERROR = 0.03
NEVER_RUNS = ("'hardsigmoid'", "'hardsigmoid_'", "nnqat.Embedding", "nnqat.EmbeddingBag")


def label(case: Any) -> str:
    return case.pattern if isinstance(case, NativeRow) else str(getattr(case, "dtype", ""))


def in_ci(cases: list[tuple[NativeRow, Outcome]]) -> list[Any]:
    """Return all with a template, those but the first of each template and mode for the sweep."""
    seen: set[tuple[str, str, bool]] = set()
    found: list[Any] = []
    for row, outcome in cases:
        if outcome.template is None:
            continue
        key = outcome.template.name, str(outcome.mode), "qat." in row.pattern
        marks = [pytest.mark.sweep] if key in seen else []
        found.append(pytest.param(row, outcome, marks=marks))
        seen.add(key)
    return found


def quantized(row: NativeRow, outcome: Outcome, name: str = "native") -> tuple[Any, ...]:
    """Return the result, the float model's output and that of the lowered module."""
    model, inputs = model_of(row.pattern)
    config = outcome.mode or "static"
    backend = backends.get("native", variant=name, config=config)
    strict = outcome.template is not None
    result = unchecked.quantize(model, inputs, backend=backend, strict=strict)
    with torch.no_grad():
        return result, _first(model(*inputs)), _first(result.module(*inputs))


def _first(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize(("row", "outcome"), in_ci(NATIVE_ROWS), ids=label)
def test_a_row_is_one_unit_that_reaches_its_kernel(row: NativeRow, outcome: Outcome) -> None:
    assert outcome.status == "lowered"
    assert outcome.template is not None
    result, expected, got = quantized(row, outcome)
    (match,) = planned_matches(result.quantized)
    name = outcome.template.name
    assert match.annotation.template in (name, f"{name}_relu")
    output = _output(result)
    if outcome.mode == "static":
        source = match.site._replace(slot=match.annotation.inputs[0][0])
        assert output is not None
        assert (("", source) in output.shares) == (row.observation == "share")
    else:
        assert output is None
        assert row.observation == "different"
    (site,) = result.report.sites
    assert site.kernel
    error = float((got - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    # What was trained for int8 is rounded so in the float model.
    trained = "qat." in row.pattern
    assert error < (STATIC_ERROR if trained else ERRORS.get(outcome.mode or "", STATIC_ERROR))
    compared = result.compare_sites()
    assert all(each.within(1, 0.02) for each in compared), compared


def _output(result: quantfx.Result) -> Annotation | None:
    """Return what is annotated on the one node whose result is quantized."""
    annotations = [annotation_of(node) for node in result.quantized.graph.nodes]
    found = [each for each in annotations if each is not None and each.output is not None]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("row", "outcome"), [case for case in NATIVE_ROWS if not case[1].template], ids=label
)
@pytest.mark.filterwarnings("ignore:.*:quantfx.patterns.errors.QuantfxWarning")
def test_a_row_without_template_says_why(row: NativeRow, outcome: Outcome) -> None:
    assert outcome.status in ("no kernel", "not expressible", "not observed")
    assert outcome.reason
    if row.pattern in NEVER_RUNS:
        return
    result, expected, got = quantized(row, outcome)
    matches = planned_matches(result.quantized)
    if (
        outcome.status == "not observed"
    ):  # of x.reshape(x.shape) the reshape is a unit, the size none
        assert [match.annotation.kind for match in matches] == ["reshape"]
    else:
        assert not matches
        torch.testing.assert_close(got, expected)


def test_methods_of_two_rows_do_not_exist() -> None:
    assert not hasattr(torch.Tensor, "hardsigmoid")
    assert not hasattr(torch.Tensor, "hardsigmoid_")


def test_embeddings_in_training_round_as_export_cannot_follow() -> None:
    qconfig: Any = default_embedding_qat_qconfig
    table: Any = nnqat.Embedding(20, 8, qconfig=qconfig)
    with refused("not-float", CaptureError, site="weight_fake_quant", fix="FakeQuantize"):
        unchecked.capture(table.eval(), (torch.randint(0, 20, (4, 3)),))


def test_counts() -> None:
    assert Counter(outcome.status for _, outcome in NATIVE_ROWS) == {
        "lowered": 213,
        "not expressible": 11,
        "not observed": 2,
        "no kernel": 1,
    }
    assert len(NATIVE.rows) == 194
    assert Counter(row.group for row in NATIVE.rows) == {
        "conv": 57, "linear": 12, "binary": 17, "cat": 1, "default": 14, "fixed-qparams": 13,
        "share-qparams": 59, "tensor-info": 2, "batch-norm": 8, "layer-norm": 2, "rnn": 5,
        "embedding": 4,
    }  # fmt: skip
    assert len(HALVES) == 101


@pytest.mark.parametrize(("row", "outcome"), in_ci(HALVES), ids=label)
def test_static_half_precision_is_a_reference_graph(row: NativeRow, outcome: Outcome) -> None:
    """Values as if each tensor were rounded to float16, and computed with in float32."""
    assert outcome.status == "reference only"
    result, expected, got = quantized(row, outcome, "legacy")
    assert [site.kernel for site in result.report.sites] == ["reference"]
    largest = float(expected.abs().max())
    bound = STATIC_ERROR if "qat." in row.pattern else ERRORS["static-fp16"]
    assert 0 < float((got - expected).abs().max()) / largest < bound
    assert torch.equal(got, got.half().float())

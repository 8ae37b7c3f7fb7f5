from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

from quantfx.backends.x86 import x86
from quantfx.passes.capture.capture import capture
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.errors import CalibrationError
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.observer import Observer
from quantfx.passes.report.contract import find_skipped, planned_matches
from tests.export_cases import CASES
from tests.models.small import mlp
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def prepared() -> GraphModule:
    return x86().prepare(capture(mlp(), (X,)))


@pytest.mark.parametrize(
    "batch", [X, (X,), [X], {"input": X}], ids=["tensor", "tuple", "list", "dict"]
)
def test_forms_of_a_batch(batch: Any) -> None:
    module = prepared()
    names = [str(node.target) for node in module.graph.find_nodes(op="placeholder")]
    given = {names[0]: X} if isinstance(batch, dict) else batch
    assert calibrate(module, [given, given]) == 2
    assert all(each.observed for each in module.modules() if isinstance(each, Observer))


def test_a_loader_of_pairs_takes_input_fn() -> None:
    loader = DataLoader(TensorDataset(X, torch.zeros(4)), batch_size=4)
    with refused("batch-names", CalibrationError, site="batch 0", fix="input_fn="):
        calibrate(prepared(), loader)
    assert calibrate(prepared(), loader, input_fn=lambda batch: batch[0]) == 1


def test_calibrating_does_not_change_the_function() -> None:
    module = prepared()
    with torch.no_grad():
        torch.testing.assert_close(module(X), mlp()(X))


@pytest.mark.parametrize(
    ("data", "rule", "fix"),
    [
        ([], "no-batches", ""),
        (iter(()), "no-batches", ""),
        (X, "calibration-form", "[x]"),
        (3, "calibration-form", ""),
        ([X, X[:, :7]], "input-shape: input", "={'input': {0: Dim.AUTO, 1: Dim.AUTO}}"),
        ([X[:, None]], "input-shape: input", "give as many dimensions"),
        ([X.double()], "input-dtype: input", ""),
        ([X * float("nan")], "not-finite: batch 0: 0 (linear).input", ""),
        ([X / 0], "not-finite: batch 0: 0 (linear).input", ""),
        ([(X, X)], "batch-names: batch 0", ""),
        (["x"], "batch-form: batch 0", "input_fn="),
    ],
)  # fmt: skip
def test_bad_data_is_refused_by_name(data: Any, rule: str, fix: str) -> None:
    with refused(rule, CalibrationError, fix=fix) as error:
        calibrate(prepared(), data)
    if rule.startswith("input-shape"):
        shape = tuple(data[-1].shape)
        assert f"batch {len(data) - 1}: input 'input' has shape {shape}" in str(error.value)
    if rule.startswith("not-finite"):
        assert "input 'input' holds NaN or infinity" in str(error.value)


def test_a_tensor_that_turns_infinite_inside_is_named() -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.second((self.first(x) * 1e30) * 1e30)

    module = x86().prepare(capture(Overflow().eval(), (X,)))
    with refused("not-finite", CalibrationError, site="second (linear_1).input"):
        calibrate(module, [X])


def test_an_error_half_way_leaves_a_usable_module() -> None:
    def batches() -> Iterator[Tensor]:
        yield X
        raise OSError("disk")

    module = prepared()
    with pytest.raises(OSError, match="disk"):
        calibrate(module, batches())
    assert calibrate(module, [X]) == 1
    x86().convert(module)


def test_a_module_without_observers_is_refused() -> None:
    with refused("not-prepared", CalibrationError):
        calibrate(capture(mlp(), (X,)), [X])


def test_converting_without_calibration_names_the_sites() -> None:
    with refused("never-run", CalibrationError, site="0 (linear).input", says="2 site"):
        x86().convert(prepared())


def test_a_branch_that_never_ran_is_named_or_left_float() -> None:
    case = CASES["cond"]
    module = x86().prepare(capture(case.make(), case.inputs))
    calibrate(module, [case.inputs])
    with refused(
        "never-run",
        CalibrationError,
        site="linear.input in branch false_graph_0",
        says="(true|false)_graph_0",
    ):
        x86().convert(module)
    pipeline = x86().convert_pipeline.replace("insert-qdq", InsertQDQ(uncalibrated="float"))
    converted = pipeline.run(module, x86().context)
    [record] = [r for r in converted.meta["quantfx_records"] if r.name == "insert-qdq"]
    assert record.remarks[0].message == "calibration never ran it: left float"


def test_both_branches_convert_once_both_ran() -> None:
    case = CASES["cond"]
    model = case.make()
    module = x86().prepare(capture(model, case.inputs))
    calibrate(module, [case.inputs, tuple(-each for each in case.inputs)])
    quantized = x86().convert(module)
    for inputs in (case.inputs, tuple(-each for each in case.inputs)):
        with torch.no_grad():
            torch.testing.assert_close(quantized(*inputs), model(*inputs), atol=0.1, rtol=0.1)


def test_mixed_dtypes_pass_through() -> None:
    class Pick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            return self.linear(x)[index]

    index = torch.tensor([0, 2])
    module = x86().prepare(capture(Pick().eval(), (X, index)))
    assert calibrate(module, [(X, index)]) == 1
    with refused("input-dtype", CalibrationError, site="index", says=r"torch\.int32.*torch\.int64"):
        calibrate(module, [(X, index.int())])


def test_left_float_is_reported_and_accepted() -> None:
    case = CASES["cond"]
    module = x86().prepare(capture(case.make(), case.inputs))
    calibrate(module, [case.inputs])
    converted = x86().convert(module, strict=False)
    [match] = planned_matches(converted)
    assert match.unconverted == ()
    [remark] = [r for r in find_skipped(converted, x86().recipe) if "calibration" in r.message]
    assert remark.message == "calibration never ran it: left float"
    assert remark.graph.endswith("_graph_0")
    with torch.no_grad():
        other = tuple(-each for each in case.inputs)
        torch.testing.assert_close(converted(*other), case.make()(*other), atol=0.1, rtol=0.1)


def test_dictionaries_may_come_in_any_order() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, d: dict[str, Tensor]) -> Tensor:
            return self.linear(d["x"]) + d["y"].sum()

    module = x86().prepare(capture(Pair().eval(), ({"x": X, "y": X[:2]},)))
    assert calibrate(module, [({"y": X[:2], "x": X},)]) == 1
    with refused("input-shape", CalibrationError, site="d['x']"):
        calibrate(module, [({"y": X[:2], "x": X[:2, None]},)])
    with refused("input-type", CalibrationError, site="d['y']"):
        calibrate(module, [({"y": "y", "x": X},)])
    with refused("batch-names", CalibrationError, site="batch 0", says=r"d\['y'\]"):
        calibrate(module, [({"x": X},)])


@pytest.mark.parametrize(
    ("captured", "given", "message"),
    [
        (2.0, 3.0, "input-value: how"),
        ("sum", "mean", "input-value: batch 1: how"),
        (None, X, "input-value: batch 1: how"),
        ({"a": [X]}, {"a": (X,)}, "input-shape: batch 1: how"),
        (0.0, -0.0, "input-value: how"),
    ],
)
def test_what_a_graph_refuses_is_an_error_of_calibration(
    captured: Any, given: Any, message: str
) -> None:
    class How(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, how: Any) -> Tensor:
            y: Tensor = self.linear(x)
            return y * how if isinstance(how, float) else y

    module = x86().prepare(capture(How().eval(), (X, captured)))
    with refused(message, CalibrationError):
        calibrate(module, [(X, captured), (X, given)])


def test_a_number_that_is_none_calibrates_as_captured() -> None:
    class Add(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, fill: float) -> Tensor:
            y: Tensor = self.linear(x)
            return y if fill != fill else y + fill

    module = x86().prepare(capture(Add().eval(), (X, float("nan"))))
    assert calibrate(module, [(X, float("nan"))]) == 1

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantfx.tools.bench.workload import WorkloadError, load_workload, named_workloads
from tests.refusals import refused

OWN = """
import torch
from torch import nn

x = torch.randn(2, 8)
def good(): return nn.Linear(8, 4).eval(), (x,), [x, (x,)]
def one_tensor(): return nn.Linear(8, 4).eval(), x, iter([x])
def pair(): return nn.Linear(8, 4).eval(), (x,)
def no_module(): return len, (x,), [x]
def training(): return nn.Linear(8, 4), (x,), [x]
def by_name(): return nn.Linear(8, 4).eval(), (x,), [{"x": x}]
def no_tensors(): return nn.Linear(8, 4).eval(), (x, 3), [x]
def no_batches(): return nn.Linear(8, 4).eval(), (x,), []
def no_iterable(): return nn.Linear(8, 4).eval(), (x,), None
def shapes(): return nn.Linear(8, 4).eval(), (x,), [x[:1]]
def raises(): raise KeyError("gone")
number = 3
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_workload.py").write_text(OWN)
    (tmp_path / "broken_workload.py").write_text("1 +")
    few = "from torch import nn\nfrom torch.nn import Linear\ndef good(): ...\ndef _own(): ...\n"
    (tmp_path / "few_workload.py").write_text(few)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_function_is_called() -> None:
    workload = load_workload("own_workload:good")
    assert [tensor.shape for tensor in workload.example] == [(2, 8)]
    assert [len(batch) for batch in workload.calibration] == [1, 1]
    assert workload.test == workload.calibration
    assert len(load_workload("own_workload:one_tensor").calibration) == 1


def test_every_process_gets_equal_weights() -> None:
    first, second = (load_workload("own_workload:good").model for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mobilenet", "unknown-name: mobilenet"),
        ("own_workload:goood", "unknown-name: goood"),
        ("own_workload:number", "unknown-name: number"),
        ("no_such_module:f", "foreign-code: no_such_module:f"),
        ("broken_workload:f", "foreign-code: broken_workload:f"),
        (":f", "foreign-code: :f"),
        ("own_workload:pair", "not-a-workload: own_workload:pair"),
        ("own_workload:no_module", "not-a-workload: own_workload:no_module"),
        ("own_workload:training", "not-a-workload: own_workload:training"),
        ("own_workload:by_name", "not-a-workload: own_workload:by_name"),
        ("own_workload:no_tensors", "not-a-workload: own_workload:no_tensors"),
        ("own_workload:no_batches", "no-batches: own_workload:no_batches"),
        ("own_workload:no_iterable", "not-a-workload: own_workload:no_iterable"),
        ("own_workload:shapes", "not-a-workload: own_workload:shapes"),
        ("own_workload:raises", "foreign-code: own_workload:raises"),
    ],
)
def test_anything_else_is_an_error_that_says_what(model: str, message: str) -> None:
    with refused(message, WorkloadError):
        load_workload(model)


def test_functions_are_offered_and_nothing_else() -> None:
    with refused("unknown-name: nn", WorkloadError, fix="choose one of 'good'"):
        load_workload("few_workload:nn")


def test_modules_are_found_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "lies_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path / "here")
    assert load_workload("lies_here:good").example


def test_a_named_network_has_data_of_the_batch_size() -> None:
    workload = load_workload("mobilenet_v2", batch=2)
    batches = [workload.example, *workload.calibration, *workload.test]
    assert {batch[0].shape for batch in batches} == {(2, 3, 224, 224)}
    assert len({batch[0][0, 0, 0, 0].item() for batch in batches}) == len(batches)
    assert not workload.model.training


def test_the_names() -> None:
    assert named_workloads() == ("resnet50", "mobilenet_v2", "bert", "efficientnet_lite0")

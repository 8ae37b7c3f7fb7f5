"""What results are as modules: parts of others, moved, copied, pickled, or an error that says why."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Result, backends
from quantfx.passes.errors import ModeError
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Keeps state in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(1))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        self.calls.add_(1)
        return self.linear(x) + self.calls


def quantized(model: nn.Module) -> Result:
    x86 = backends.get("x86", target="avx2")
    return quantfx.quantize(model, (X,), calibration=[X], backend=x86)


@pytest.fixture(scope="module")
def result() -> Result:
    return quantized(seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU())))


@pytest.fixture(scope="module")
def compiled(result: Result) -> Any:
    return result.compile()


def test_a_part_of_another_module(compiled: Any) -> None:
    detector = nn.Module()
    detector.backbone = nn.Linear(8, 8)
    detector.head = nn.Linear(8, 2)
    detector.backbone = compiled
    detector.eval()
    assert isinstance(detector.backbone, nn.Module)
    assert not compiled.training
    assert list(detector.parameters()) == list(detector.head.parameters())
    detector.to("cpu").float()
    calls: list[Any] = []
    handle = compiled.register_forward_hook(lambda module, args, out: calls.append(module))
    whole = nn.Sequential(compiled, nn.Tanh()).eval()
    expected = torch.tanh(compiled(X))
    assert torch.equal(whole(X), expected)
    handle.remove()
    assert calls == [compiled, compiled]
    assert torch.equal(torch.compile(whole)(X), expected)


REFUSED: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "half": (lambda module: module.half(), "fixed-dtype", "float16"),
    "double": (lambda module: module.to(torch.float64), "fixed-dtype", "float64"),
    "around it": (lambda module: nn.Sequential(module).bfloat16(), "fixed-dtype", "bfloat16"),
    "meta": (lambda module: module.to("meta"), "fixed-device", "cpu.*meta"),
    "weights": (lambda module: module.state_dict(), "no-state-dict", r"result\.save\(path\)"),
    "pickle": (pickle.dumps, "not-picklable", r"result\.save\(path\)"),
    "export": (
        lambda module: torch.export.export(module, (X,)),
        "not-exportable",
        r"result\.quantized",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_compiled_code_cannot_do_is_said(name: str, compiled: Any) -> None:
    act, rule, says = REFUSED[name]
    with refused(rule, says=says):
        act(compiled)
    with refused("eval-only", ModeError):
        nn.Sequential(compiled).train()


def test_graphs_keep_their_dtypes(result: Result) -> None:
    expected = result.module(X)
    for module, site in (
        (result.module, "a graph of int8 kernels"),
        (result.quantized, "a quantized graph"),
    ):
        with refused("fixed-dtype", site=site, says="float16"):
            module.half()
        assert module.float() is module
    assert torch.equal(result.module(X), expected)
    captured = quantfx.capture(seeded(lambda: nn.Linear(8, 8)), (X,), check_inputs=False)
    assert captured.double()(X.double()).dtype is torch.float64


def test_a_deep_copy_has_state_of_its_own() -> None:
    compiled: Any = quantized(seeded(Counting)).compile()
    first = compiled(X)
    copied = copy.deepcopy(compiled)
    torch.testing.assert_close(compiled(X), first + 1)
    torch.testing.assert_close(compiled(X), first + 2)
    torch.testing.assert_close(copied(X), first + 1)


def test_results_are_copied_and_not_pickled(result: Result) -> None:
    expected = result.module(X)
    assert copy.copy(result).quantized is result.quantized
    copied = copy.deepcopy(result)
    assert copied.quantized is not result.quantized
    assert torch.equal(copied.module(X), expected)
    with refused("not-picklable", fix="quantfx.load(path)"):
        pickle.dumps(result)


def test_auto_has_what_its_model_has() -> None:
    model: Any = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    model.extra = 3
    auto: Any = quantfx.auto(model, backend=backends.get("x86", target="avx2"))
    assert auto[0] is model[0]
    assert len(auto) == 2
    assert list(auto) == list(model)
    assert auto.extra == 3
    auto.extra = 4
    assert model.extra == 4
    assert auto.state == "observing"
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'absent'"):
        _ = auto.absent
    with refused("not-picklable"):
        copy.deepcopy(auto)


def test_auto_has_no_length_where_the_model_has_none() -> None:
    auto: Any = quantfx.auto(seeded(lambda: nn.Linear(8, 8)))
    assert auto
    assert not hasattr(auto, "__len__")
    assert auto.weight is auto.model.weight

"""What a capture specializes, by every way to call what comes of it: right, or refused by name.

Each cell is a test. "Right" is what the float model gives, within what int8 costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.backends.inductor.torch_internals import BackendCompilerFailed
from quantfx.passes.errors import InputError, ModeError
from quantfx.patterns.errors import QuantfxError
from tests.refusals import refused


class Model(nn.Module):
    """Does with its input, and with an argument, what a case says."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor, other: Any = None) -> Any:
        return self.function(self.conv(x), other)


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FOUR = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
MASK = torch.arange(8) % 2 == 0


def scaled(y: Tensor, other: Any) -> Tensor:
    return y * other


def masked(y: Tensor, other: Any) -> Tensor:
    return y if other is None else y.masked_fill(other, 0.0)


def rows(y: Tensor, other: Any) -> Tensor:
    return y.permute(0, 2, 3, 1).reshape(y.size(0), -1, 4)


def pooled(y: Tensor, other: Any) -> Tensor:
    return y.sum((2, 3)) if other == "sum" else y.mean((2, 3))


def keyed(y: Tensor, other: Any) -> Tensor:
    return y + sum(other.values())


def plain(y: Tensor, other: Any) -> Tensor:
    return torch.relu(y)


# What is specialized: function, inputs captured with, inputs called with, whether these are right.
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...], bool]] = {
    "batch, free": (plain, (X, None), (FOUR, None), True),
    "batch, in a view": (rows, (X, None), (FOUR, None), False),
    "height": (plain, (X, None), (FOUR[..., :6, :], None), False),
    "rank": (plain, (X, None), (X[0], None), False),
    "layout": (plain, (X, None), (X.to(memory_format=torch.channels_last), None), True),
    "strides": (plain, (X, None), (FOUR[::2], None), True),
    "expanded": (plain, (X, None), (X[:1].expand(2, -1, -1, -1), None), True),
    "number": (scaled, (X, 2.0), (X, 3.0), False),
    "kind of number": (scaled, (X, 2.0), (X, 2), False),
    "flag": (lambda y, o: y if o else -y, (X, True), (X, False), False),
    "none": (masked, (X, None), (X, MASK), False),
    "given": (masked, (X, MASK), (X, None), False),
    "string": (pooled, (X, "sum"), (X, "mean"), False),
    "structure": (keyed, (X, {"a": X[:, :1]}), (X, {"b": X[:, :1]}), False),
    "more": (keyed, (X, {"a": X[:, :1]}), (X, {"a": X[:, :1], "b": X[:, :1]}), False),
    "dtype": (plain, (X, None), (X.double(), None), False),
    "device": (plain, (X, None), (X.to("meta"), None), False),
}


@lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(mkdtemp(prefix="specialized-"))


@lru_cache(maxsize=2)
def _result(case: str) -> tuple[nn.Module, quantfx.Result]:
    function, captured, _, _ = CASES[case]
    torch.manual_seed(0)
    model = Model(function).eval()
    return model, quantfx.quantize(model, captured, calibration=[captured])


@lru_cache(maxsize=1)
def _loaded(case: str) -> quantfx.Result:
    path = _folder() / f"{case.replace(' ', '-')}.quantfx"
    _result(case)[1].save(path)
    return quantfx.load(path)


def _lowered(case: str) -> Callable[..., Any]:
    torch.compiler.reset()
    compiled: Callable[..., Any] = torch.compile(
        _result(case)[1].quantized, backend="quantfx_lower"
    )
    return compiled


def _dynamo(case: str) -> Callable[..., Any]:
    torch.compiler.reset()
    model = _result(case)[0]
    compiled = torch.compile(model, backend="quantfx_x86", options={"calibration_batches": 1})

    def call(*inputs: Any) -> Any:
        with torch.no_grad():
            return compiled(*inputs)

    call(*CASES[case][1])
    return call


def _auto(case: str) -> Callable[..., Any]:
    torch.compiler.reset()
    model = quantfx.auto(_result(case)[0], calibration_batches=1)

    def call(*inputs: Any) -> Any:
        with torch.no_grad():
            return model(*inputs)

    call(*CASES[case][1])
    return call


def _qat(case: str) -> Callable[..., Any]:
    function, captured, _, _ = CASES[case]
    torch.manual_seed(0)
    model = Model(function)
    prepared = quantfx.prepare_qat(model, captured, calibration=[captured])
    return prepared.eval()


# Those that take a second or more to compile are called for every case in the sweep, and in CI for
# one that is right or one that is not; libraries, which take longest, in the sweep only.
WAYS: dict[str, Callable[[str], Callable[..., Any]]] = {
    "quantized": lambda case: _result(case)[1].quantized,
    "module": lambda case: _result(case)[1].module,
    "loaded": lambda case: _loaded(case).module,
    "loaded quantized": lambda case: _loaded(case).quantized,
    "QAT": _qat,
}
COMPILED: dict[str, Callable[[str], Callable[..., Any]]] = {
    "compiled": lambda case: _result(case)[1].compile(),
    "compiled, cpp": lambda case: _result(case)[1].compile(wrapper="cpp"),
    "aot": lambda case: _result(case)[1].compile(wrapper="aot"),
    "quantfx_lower": _lowered,
    "quantfx_x86": _dynamo,
    "auto": _auto,
}
# Dynamo compiles anew for what it specializes, so these are right; libraries have one batch size.
BY_DYNAMO = {"quantfx_x86", "auto"}
# "compiled, cpp" checks its calls as "compiled" does, and test_compiled_2_13.py has its results.
SWEPT = {"aot", "compiled, cpp"}
IN_CI = [
    ("compiled", "batch, free"),
    ("compiled", "number"),
    ("quantfx_lower", "number"),
    ("quantfx_x86", "batch, free"),
    ("auto", "number"),
]
assert {way for way, _ in IN_CI} == COMPILED.keys() - SWEPT
# The graphs of training check their calls as those of evaluation do: in CI one of each kind.
TRAINED = {"batch, free", "batch, in a view", "rank", "number", "none", "structure"}


def agrees(case: str, way: str) -> None:
    _, captured, called, right = CASES[case]
    model = _result(case)[0]
    run = {**WAYS, **COMPILED}[way](case)
    close(run(*captured), model(*captured))
    right = right and not (way == "aot" and case == "batch, free")
    if right:
        close(run(*called), model(*called))
    elif way in BY_DYNAMO:
        is_right_or_refuses(lambda: close(run(*called), model(*called)))
    else:
        with pytest.raises(InputError):
            run(*called)
    close(run(*captured), model(*captured))


# Of ours, or the model's own for inputs that it does not take.
REFUSALS = (QuantfxError, BackendCompilerFailed, RuntimeError, TypeError)


def is_right_or_refuses(call: Callable[[], None]) -> None:
    with contextlib.suppress(*REFUSALS):
        call()


def close(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    noise = (ours - theirs).pow(2).sum()
    assert 10 * torch.log10(theirs.pow(2).sum() / noise) > 25


@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param(case, way, marks=[pytest.mark.sweep] * (way == "QAT" and case not in TRAINED))
        for case, way in product(CASES, WAYS)
    ],
)
def test_every_way_to_call_is_right_or_refuses(case: str, way: str) -> None:
    agrees(case, way)


@pytest.mark.parametrize(("way", "case"), IN_CI)
def test_every_compiled_way_is_right_or_refuses(way: str, case: str) -> None:
    agrees(case, way)


@pytest.mark.sweep
@pytest.mark.parametrize(("way", "case"), sorted(set(product(COMPILED, CASES)) - set(IN_CI)))
def test_all_compiled_ways_are_right_or_refuse(way: str, case: str) -> None:
    agrees(case, way)


@pytest.mark.parametrize("way", ["quantized", "module", "loaded"])
def test_graphs_of_evaluation_do_not_train(way: str) -> None:
    module: Any = WAYS[way]("batch, free")
    with refused("captured-mode", ModeError, fix="prepare_qat"):
        module.train()
    assert not module.training
    assert module.eval() is module


@pytest.mark.parametrize("way", ["quantized", "module", "loaded"])
def test_autocast_changes_nothing_or_little(way: str) -> None:
    model, module = _result("batch, free")[0], WAYS[way]("batch, free")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        close(module(X, None).float(), model(X, None).float())


def test_checks_go_on_request() -> None:
    model = Model(scaled).eval()
    result = quantfx.quantize(model, (X, 2.0), calibration=[(X, 2.0)], check_inputs=False)
    close(result.module(X, 3.0), model(X, 2.0))

"""A model may write to its inputs; those of the user are left alone until the user calls."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.capture.capture import capture
from quantfx.passes.model.input_copies import copy_inputs, spare_inputs, writes_to_inputs
from quantfx.passes.pipeline.instruments import CheckNumerics
from quantfx.patterns.errors import QuantfxWarning
from tests.refusals import warned


class Writes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state[:, :4].add_(1)
        return self.linear(x) + state


class WritesInDict(Writes):
    def forward(self, x: Tensor, state: Any) -> Tensor:
        state["h"].mul_(0.5).add_(1)
        return self.linear(x) + state["h"]


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.relu_())


def _x(rows: int = 4) -> Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(0))


CASES: list[tuple[type[nn.Module], tuple[Any, ...]]] = [
    (Writes, (_x(), torch.zeros(4, 8))),
    (WritesInDict, (_x(), {"h": torch.zeros(4, 8)})),
    (Rectified, (_x(),)),
]


def _tensors(inputs: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in inputs:
        found += [value] if isinstance(value, Tensor) else list(value.values())
    return found


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.sweep)])
@pytest.mark.parametrize(("kind", "inputs"), CASES)
def test_neither_example_nor_batches_are_written_to(
    kind: type[nn.Module], inputs: tuple[Any, ...], compiles: bool
) -> None:
    before = [(each.clone(), each._version) for each in _tensors(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        result = quantfx.quantize(kind().eval(), inputs, calibration=[inputs])
        quantfx.prepare_qat(kind(), inputs, calibration=[inputs])
    if compiles:  # which test_a_call_of_the_user_writes_as_the_model_does does in CI
        result.compile()
    result.compare_sites()
    for each, (values, version) in zip(_tensors(inputs), before, strict=True):
        assert torch.equal(each, values)
        assert each._version == version


@pytest.mark.parametrize("way", ["quantized", "module", "compiled"])
def test_a_call_of_the_user_writes_as_the_model_does(way: str) -> None:
    model = Writes().eval()
    result = quantfx.quantize(
        model, (_x(), torch.zeros(4, 8)), calibration=[(_x(), torch.zeros(4, 8))]
    )
    run: Any = result.compile() if way == "compiled" else getattr(result, way)
    theirs, ours = torch.zeros(4, 8), torch.zeros(4, 8)
    with torch.no_grad():
        for _ in range(3):
            model(_x(), theirs)
            run(_x(), ours)
    assert float(ours.max()) == 3.0
    assert torch.equal(theirs, ours)


def test_what_a_graph_does_not_write_is_told() -> None:
    class Eager(Writes):
        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            if not torch.compiler.is_exporting():
                state.add_(1)
            return self.linear(x)

    with warned("capture-differs", site="Eager", says=r"input\['state'\].*in 100%"):
        capture(Eager().eval(), (_x(), torch.zeros(4, 8)))


def test_numerics_of_passes_are_checked_on_copies() -> None:
    state = torch.zeros(4, 8)
    graph = capture(Writes().eval(), (_x(), state))
    check = CheckNumerics((_x(), state))
    check._outputs(graph)
    assert not state.any()


def test_copies_keep_strides_and_common_memory() -> None:
    data = torch.arange(1000.0)
    rows = data[100:124].view(4, 6)
    part, expanded = rows.t()[1:], data[110].expand(3, 2)
    inputs = (rows, [part, rows]), {"k": expanded, "n": 3, "wide": torch.zeros(0)}
    (first, (second, again)), kwargs = copy_inputs(*inputs)
    assert again is first
    assert first.stride() == rows.stride()
    assert second.stride() == part.stride()
    assert kwargs["k"].stride() == (0, 0)
    assert kwargs["n"] == 3
    first.add_(1)
    assert torch.equal(second, part + 1)
    assert torch.equal(kwargs["k"], expanded + 1)
    assert torch.equal(data, torch.arange(1000.0))
    assert first.untyped_storage().nbytes() == 24 * 4


def test_gradients_are_asked_for_as_before() -> None:
    (one, other), _ = copy_inputs((torch.zeros(2, requires_grad=True), torch.zeros(2)), {})
    assert (one.requires_grad, other.requires_grad) == (True, False)


def test_sparse_inputs_are_copied_too() -> None:
    given = torch.eye(3).to_sparse()
    (copy,), _ = copy_inputs((given,), {})
    assert copy is not given
    assert torch.equal(copy.to_dense(), torch.eye(3))


def test_inputs_that_are_only_read_are_not_copied() -> None:
    x = _x()
    reads = capture(nn.Linear(8, 8).eval(), (x,))
    assert not writes_to_inputs(reads)
    assert spare_inputs(reads, (x,), {})[0][0] is x
    writes = capture(Rectified().eval(), (x,))
    assert writes_to_inputs(writes)
    assert spare_inputs(writes, (x,), {})[0][0] is not x

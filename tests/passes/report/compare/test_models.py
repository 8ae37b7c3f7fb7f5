"""Comparisons of models of many kinds: trained, recurrent, written to, half precision, masked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Config, backends
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.quant.qdq import dequantizes, tensor_qparams
from quantfx.passes.report.compare.compare_graphs import compare_graphs
from quantfx.passes.report.compare.tally import CodeTally, ErrorTally
from quantfx.tools.models.seeded import seeded
from tests.unchecked import capture, prepare_qat, quantize

X86 = backends.get("x86", target="avx512_vnni")


def test_a_trained_result_compares_with_its_own_weights() -> None:
    model, x = (
        seeded(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))),
        randn(),
    )
    trained = prepare_qat(model.train(), (x,), calibration=[x], backend=X86)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        trained(x).square().mean().backward()
        optimizer.step()
    result = quantfx.convert_qat(trained, strict=False)
    own, other = result.compare([x]), result.compare([x], model=model.eval())
    assert own.output is not None
    assert other.output is not None
    assert own.output.sqnr > 25 > other.output.sqnr
    assert len(own.sites) == 2


def randn() -> Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    """An LSTM, whose kernel packs its weights, in front of a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.linear(self.lstm(x)[0])


def test_kernels_that_quantize_their_weights_are_said_to_be_left_out() -> None:
    model, x = seeded(Recurrent), torch.randn(2, 5, 16)
    config = Config("static").op("lstm", "dynamic")
    result = quantize(model, (x,), calibration=[x], backend="native", config=config)
    found = result.compare([x])
    assert "linear" in [str(each.site) for each in found.sites]
    (left_out,) = found.left_out
    assert left_out[0] == "lstm"
    assert "its kernel quantizes the weight itself" in left_out[1]


class Writing(nn.Module):
    """Writes to its input and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        self.calls.add_(1)
        return self.linear(x.add_(1.0))


def test_inputs_and_models_that_are_written_to_stay_as_they_are() -> None:
    model, x = seeded(Writing), randn()
    result = quantize(model, (x.clone(),), calibration=[x.clone()], backend=X86)
    calls, given = model.calls.clone(), x.clone()
    found = result.compare([x, x, x])
    assert torch.equal(model.calls, calls)
    assert torch.equal(x, given)
    assert found.output is not None
    assert found.model is not None
    assert found.output.sqnr > 30
    assert found.model.sqnr > 100


def test_a_model_of_half_precision_is_not_accused() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))).bfloat16()
    x = randn().bfloat16()
    found = quantize(model, (x,), calibration=[x], backend=X86).compare([x])
    assert found.model is None
    assert "the float graph is not the model" not in str(found)


def test_a_result_that_is_not_finite_is_wrong_and_not_exact() -> None:
    model, x = seeded(lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU())), randn()
    result = quantize(model, (x,), calibration=[x], backend=X86)
    broken = clone(result.quantized)
    node = next(n for n in broken.graph.nodes if dequantizes(n) and "per_tensor" in str(n.target))
    node.update_arg(1, math.nan)
    recompile(broken)
    found = compare_graphs(X86.prepare(capture(model, (x,))), broken, [x])
    assert found.output is not None
    assert found.output.sqnr == -math.inf
    assert "results: -inf dB" in str(found)


def test_masks_that_are_infinite_in_both_count_for_nothing() -> None:
    exact = torch.tensor([1.0, -math.inf, 2.0])
    tally = ErrorTally()
    tally.add(exact, exact.clone())
    fidelity = tally.fidelity()
    assert fidelity is not None
    assert fidelity.sqnr == math.inf
    tally.add(exact, torch.tensor([1.0, 0.0, 2.0]))
    fidelity = tally.fidelity()
    assert fidelity is not None
    assert fidelity.sqnr == -math.inf


def codes() -> CodeTally:
    model, x = seeded(lambda: nn.Sequential(nn.Linear(16, 8), nn.ReLU())), randn()
    graph = quantize(model, (x,), calibration=[x], backend=X86).quantized
    node = next(n for n in graph.graph.nodes if dequantizes(n) and "per_tensor" in str(n.target))
    return CodeTally(tensor_qparams(node))


@pytest.mark.parametrize(
    ("shapes", "channels"),
    [([(4, 16), (2, 16)], 16), ([(4, 8), (4, 12)], 0), ([(16,)], None)],
    ids=["rows", "lengths", "vectors"],
)
def test_values_of_any_shape_are_counted(
    shapes: list[tuple[int, ...]], channels: int | None
) -> None:
    tally = codes()
    for shape in shapes:
        tally.add(torch.ones(shape), -1)
    tally.add(torch.full(shapes[-1], math.nan), -1)
    assert tally.total == sum(math.prod(shape) for shape in shapes)
    assert (None if tally.channels is None else len(tally.channels)) == channels


def test_the_channels_of_a_convolution_are_those_that_it_reads() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3)))
    x = torch.randn(4, 4, 20, generator=torch.Generator().manual_seed(0))
    found = quantize(model, (x,), calibration=[x], backend=X86).compare([x])
    assert [each.inputs[0].channels for each in found.sites] == [4, 8]

"""Recurrent layers from the model to the operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.backends.checks.compiled import Loaded
from quantfx.backends.recurrent import family, layer
from quantfx.passes.report.contract import find_skipped
from quantfx.patterns.errors import QuantfxWarning
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.sequences import SpeakerEncoder, Tagger, trained_speaker_encoder
from tests.refusals import refused

LEAST = 30  # dB of one layer or two of random weights
SEQUENCES = {
    "lstm": lambda: nn.LSTM(12, 20),
    "lstm-layers": lambda: nn.LSTM(12, 20, 2, batch_first=True, dropout=0.5),
    "lstm-both-ways": lambda: nn.LSTM(12, 20, 2, bidirectional=True, batch_first=True),
    "lstm-projected": lambda: nn.LSTM(12, 20, 2, bidirectional=True, proj_size=6),
    "lstm-no-bias": lambda: nn.LSTM(12, 20, bias=False),
    "gru": lambda: nn.GRU(12, 20, 2, bidirectional=True),
    "rnn": lambda: nn.RNN(12, 20, batch_first=True),
    "rnn-relu": lambda: nn.RNN(12, 20, nonlinearity="relu"),
}
CELLS = {
    "lstm": lambda: nn.LSTMCell(12, 20),
    "lstm-no-bias": lambda: nn.LSTMCell(12, 20, bias=False),
    "gru": lambda: nn.GRUCell(12, 20),
    "rnn": lambda: nn.RNNCell(12, 20),
    "rnn-relu": lambda: nn.RNNCell(12, 20, nonlinearity="relu"),
}


def flat(results: object) -> list[Tensor]:
    """Return all tensors of what a recurrent layer returns."""
    if isinstance(results, Tensor):
        return [results]
    assert isinstance(results, tuple)
    return [tensor for each in results for tensor in flat(each)]


def check(model: nn.Module, *inputs: object) -> quantfx.Result:
    """Quantize dynamically; every result is near the float one, and of its shape."""
    result = unchecked.quantize(model, inputs, config="dynamic")
    assert [each.status for each in result.report.sites] == ["kernel"]
    with torch.no_grad():
        expected = flat(model(*inputs))
    for made, wanted in zip(flat(result.module(*inputs)), expected, strict=True):
        assert made.shape == wanted.shape
        assert sqnr_db(wanted, made) > LEAST
    return result


@pytest.mark.parametrize("name", SEQUENCES)
def test_layers(name: str) -> None:
    check(seeded(SEQUENCES[name]), torch.randn(5, 3, 12))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_sequence_without_a_batch(name: str) -> None:
    check(seeded(SEQUENCES[name]), torch.randn(5, 12))


def test_a_first_state() -> None:
    state = (torch.randn(4, 3, 6), torch.randn(4, 3, 20))
    check(seeded(SEQUENCES["lstm-projected"]), torch.randn(5, 3, 12), state)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("batched", [True, False])
def test_cells(name: str, batched: bool) -> None:
    check(seeded(CELLS[name]), torch.randn(3, 12) if batched else torch.randn(12))


class OneBias(nn.Module):
    """A GRU cell without one of its two biases."""

    def __init__(self, *, of_input: bool) -> None:
        super().__init__()
        self.cell, self.of_input = nn.GRUCell(12, 20), of_input

    def forward(self, x: Tensor) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = self.cell.parameters()
        biases = (b_ih, None) if self.of_input else (None, b_hh)
        return torch.gru_cell(x, x.new_ones(x.shape[0], 20), w_ih, w_hh, *biases)


@pytest.mark.parametrize("of_input", [True, False])
def test_a_cell_with_one_bias(of_input: bool) -> None:
    check(seeded(lambda: OneBias(of_input=of_input)), torch.randn(3, 12))


class Outputs(nn.Module):
    """Leaves the states of a recurrent layer away."""

    def forward(self, results: tuple[Tensor, object]) -> Tensor:
        return results[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.LSTM(8, 16, batch_first=True), Outputs()),
        pytest.param(lambda: SpeakerEncoder(mels=8, hidden=16, layers=2), marks=pytest.mark.sweep),
    ],
    ids=["layer", "encoder"],
)
def test_other_batches_and_lengths(make: Callable[[], nn.Module]) -> None:
    model = seeded(make)
    free = ({0: Dim.AUTO, 1: Dim.AUTO},)
    result = unchecked.quantize(
        model, (torch.rand(2, 9, 8),), config="dynamic", dynamic_shapes=free
    )
    other = torch.rand(5, 31, 8)
    with torch.no_grad():
        assert sqnr_db(model(other), result.module(other)) > LEAST
    assert torch.allclose(result.compile()(other), result.module(other), atol=1e-5)


def test_a_file_takes_any_length(tmp_path: Path) -> None:
    model = seeded(lambda: nn.GRU(8, 16, batch_first=True))
    free = ({0: Dim("rows"), 1: Dim("steps", max=4000)},)
    result = quantfx.quantize(model, torch.rand(2, 9, 8), config="dynamic", dynamic_shapes=free)
    result.save(tmp_path / "model.quantfx")
    again = quantfx.load(tmp_path / "model.quantfx")
    for steps in (1, 31):
        other = torch.rand(3, steps, 8)
        with torch.no_grad():
            wanted = flat(model(other))
        for made, want in zip(flat(again.module(other)), wanted, strict=True):
            assert sqnr_db(want, made) > LEAST


def test_files_hold_int8_weights(tmp_path: Path) -> None:
    model = seeded(lambda: nn.LSTM(64, 256, batch_first=True))
    x = torch.randn(1, 4, 64)
    result = unchecked.quantize(model, (x,), config="dynamic")
    result.save(tmp_path / "model.quantfx")
    assert quantfx.load(tmp_path / "model.quantfx").module(x)[0].equal(result.module(x)[0])
    size = sum(4 * each.numel() for each in model.parameters())
    assert (tmp_path / "model.quantfx").stat().st_size < 0.3 * size


def test_it_compiles_beside_other_layers() -> None:
    model = seeded(lambda: Tagger(words=50, width=16, tags=4))
    words = torch.randint(50, (2, 7))
    result = unchecked.quantize(model, (words,), config="dynamic")
    assert torch.allclose(result.compile()(words), result.module(words), atol=1e-4)
    assert [each.compiled for each in result.report.sites] == [
        "rows.int8",
        "quantfx.recurrent",
        "qlinear_pointwise.tensor",
    ]
    with torch.no_grad():
        assert sqnr_db(model(words), result.module(words)) > LEAST - 5


def test_only_weights_are_quantized(graph_snapshot: SnapshotAssertion) -> None:
    result = unchecked.quantize(
        seeded(SEQUENCES["lstm-projected"]), (torch.randn(5, 3, 12),), config="dynamic"
    )
    assert result.quantized == graph_snapshot


def test_the_lowered_graph(graph_snapshot: SnapshotAssertion) -> None:
    model = seeded(CELLS["gru"])
    result = unchecked.quantize(model, (torch.randn(3, 12),), config="dynamic")
    assert result.module == graph_snapshot


def test_without_a_compiler_torch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = seeded(SEQUENCES["lstm-both-ways"]), torch.randn(5, 3, 12)
    kernel = unchecked.quantize(model, (x,), config="dynamic").module(x)[0]
    none = Loaded("there is no C++ compiler: install g++")
    monkeypatch.setattr(family, "runtime", lambda: none)
    monkeypatch.setattr(layer, "runtime", lambda: none)
    result = unchecked.quantize(model, (x,), config="dynamic")
    assert torch.allclose(result.module(x)[0], kernel, atol=1e-5)
    [site] = result.report.sites
    assert "there is no C++ compiler" in site.reason


class Scaled(nn.Module):
    """An LSTM whose weights depend on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 20)

    def forward(self, x: Tensor) -> Tensor:
        weights = [each * x.mean().sigmoid() for each in self.lstm.parameters()]
        state = x.new_zeros(1, x.shape[1], 20)
        made: Tensor = torch.lstm(x, (state, state), weights, True, 1, 0.0, False, False, False)[0]
        return made


def test_weights_that_are_computed_stay_float() -> None:
    backend = quantfx.backends.get("x86").with_config("dynamic")
    graph = unchecked.capture(Scaled().eval(), (torch.randn(5, 3, 12),))
    prepared = backend.prepare(graph, strict=False)
    skipped = {each.op: each.message for each in find_skipped(prepared, backend.recipe)}
    assert "is computed, not a stored weight" in skipped["aten.lstm.input"]


@pytest.mark.parametrize("name", ["gru", "cell"])
def test_a_static_config_takes_it_as_well(name: str) -> None:
    """The default: rows are rounded in each call, with scales of their own, in both modes."""
    is_cell = name == "cell"
    model: nn.Module = seeded(CELLS["gru"] if is_cell else SEQUENCES["gru"])
    x = torch.randn(*([] if is_cell else [5]), 3, 12)
    static, dynamic = (
        unchecked.quantize(model, (x,), config=config) for config in ("static", "dynamic")
    )
    assert [row.label for row in static.report.rows] == [row.label for row in dynamic.report.rows]
    for found, expected in zip(flat(static.module(x)), flat(dynamic.module(x)), strict=True):
        assert torch.equal(found, expected)


def test_generated_cpp_cannot_call_it_and_is_told_so() -> None:
    result = unchecked.quantize(seeded(SEQUENCES["gru"]), (torch.randn(5, 3, 12),))
    for wrapper in ("cpp", "aot"):
        with refused("no-kernel", says="only Python can call quantfx.recurrent, generated C++"):
            result.compile(wrapper=wrapper)


@pytest.mark.sweep
@pytest.mark.parametrize("wrapper", ["cpp", "aot"])
def test_generated_cpp_computes_it_in_float_where_that_is_accepted(wrapper: Any) -> None:
    x = torch.randn(5, 3, 12)
    result = unchecked.quantize(seeded(SEQUENCES["gru"]), (x,), strict=False)
    with pytest.warns(QuantfxWarning, match="only Python can call"):
        compiled = result.compile(wrapper=wrapper, strict=False)
    torch.testing.assert_close(flat(compiled(x)), flat(result.quantized(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.sweep
@pytest.mark.skipif(trained_speaker_encoder() is None, reason="needs resemblyzer")
def test_a_speaker_encoder_with_real_weights() -> None:
    model = trained_speaker_encoder()
    assert model is not None
    torch.manual_seed(0)
    x = torch.rand(4, 160, 40) ** 4 * 0.5
    result = unchecked.quantize(model, (x,), config="dynamic")
    with torch.no_grad():
        assert sqnr_db(model(x), result.module(x)) > 19.5

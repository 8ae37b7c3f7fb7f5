"""The kernel against its reference, and the reference against torch's float layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.backends.checks.compiled import Loaded
from quantfx.backends.recurrent.layer import (
    GATES,
    KINDS,
    MOST,
    Layer,
    State,
    Weight,
    reference,
    run_layers,
)
from quantfx.backends.recurrent.library import runtime
from quantfx.tools.measure.metrics import sqnr_db

needs_compiler = pytest.mark.skipif(runtime().library is None, reason=runtime().reason)
STEPS, BATCH = 5, 3


def weight(channels: int, width: int, bias: bool) -> Weight:
    """Return random integers of the whole range, the ends among them."""
    integers = torch.randint(-MOST, MOST + 1, (channels, width), dtype=torch.int8)
    integers[0] = MOST
    integers[-1] = -MOST
    scales = (0.5 + torch.rand(channels)) / MOST / width**0.5
    return Weight(integers, scales, torch.randn(channels) / 4 if bias else None)


def layer(kind: str, sizes: tuple[int, int, int | None], *, bias: bool, reverse: bool) -> Layer:
    torch.manual_seed(0)
    inputs, hidden, projected = sizes
    gates = hidden * GATES[kind]
    return Layer(
        kind,
        weight(gates, inputs, bias),
        weight(gates, projected or hidden, bias),
        weight(projected, hidden, bias=False) if projected else None,
        reverse,
    )


def start(made: Layer, batch: int) -> State:
    width = made.of_state.integers.shape[1]
    cells = torch.randn(batch, made.hidden) if made.kind == "lstm" else None
    return State(torch.randn(batch, width), cells)


def both(made: Layer, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return what the kernel and the reference make of ``x``, and of each state."""
    first = start(made, x.shape[1])
    outs = [torch.full((*x.shape[:2], first.h.shape[1]), torch.nan) for _ in range(2)]
    ends = [*run_layers([made], x, [first], outs[:1]), reference(made, x, first, outs[1])]
    pairs = [(outs[0], outs[1]), (ends[0].h, ends[1].h)]
    if ends[0].c is not None and ends[1].c is not None:
        pairs.append((ends[0].c, ends[1].c))
    return pairs


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes", [(1, 1, None), (40, 17, None), (33, 32, None), (64, 40, 7)], ids=str
)
@pytest.mark.parametrize("batch", [1, 6])
def test_the_kernel_is_the_reference(
    kind: str, sizes: tuple[int, int, int | None], batch: int
) -> None:
    if sizes[2] and kind != "lstm":
        sizes = (*sizes[:2], None)
    made = layer(kind, sizes, bias=batch > 1, reverse=batch > 1)
    x = torch.randn(STEPS, batch, sizes[0]) * torch.logspace(-3, 3, STEPS)[:, None, None]
    for kernel, expected in both(made, x):
        assert torch.allclose(kernel, expected, rtol=1e-4, atol=2e-6)


@needs_compiler
def test_the_largest_sums_are_exact() -> None:
    """AVX2 adds two products in 16 bits: 2 * 127 * 127 must fit."""
    full = Weight(torch.full((4, 64), MOST, dtype=torch.int8), torch.ones(4))
    made = Layer("rnn_relu", full, Weight(torch.zeros(4, 4, dtype=torch.int8), torch.ones(4)))
    for sign in (1.0, -1.0):
        full.integers.fill_(int(sign * MOST))
        out = torch.empty(1, 1, 4)
        run_layers([made], torch.full((1, 1, 64), sign), [State(torch.zeros(1, 4))], [out])
        assert torch.allclose(out, torch.full_like(out, 64.0 * MOST))


@needs_compiler
def test_tensors_that_are_not_in_order() -> None:
    made = layer("gru", (8, 4, None), bias=True, reverse=False)
    x = torch.randn(BATCH, 8, STEPS).permute(2, 0, 1)
    first = start(made, BATCH)
    out = torch.zeros(BATCH, STEPS, 8)
    run_layers([made], x, [first], [out[..., 4:].transpose(0, 1)])
    expected = torch.empty(STEPS, BATCH, 4)
    run_layers([made], x.contiguous(), [first], [expected])
    assert out[..., 4:].transpose(0, 1).equal(expected)
    assert out[..., :4].eq(0).all()


def many(kind: str, layers: int, directions: int, projected: int | None) -> list[Layer]:
    """Return layers of 64 units, both directions side by side."""
    width = projected or 64
    inputs = [24] * directions + [directions * width] * (layers - 1) * directions
    return [
        layer(kind, (each, 64, projected), bias=True, reverse=directions == 2 and at % 2 == 1)
        for at, each in enumerate(inputs)
    ]


def run_with(threads: int, made: list[Layer], x: Tensor, directions: int) -> list[Tensor]:
    """Return the outputs of all layers, and the last states."""
    torch.manual_seed(1)
    first = [start(each, x.shape[1]) for each in made]
    shape = (*x.shape[:2], directions * first[0].h.shape[1])
    outs = [torch.full(shape, torch.nan) for _ in made[::directions]]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        ends = run_layers(made, x, first, outs)
    finally:
        torch.set_num_threads(before)
    return [*outs, *(each.h for each in ends), *(each.c for each in ends if each.c is not None)]


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (3, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize(("steps", "batch"), [(16, 1), (49, 1), (33, 3), (24, 8)])
def test_threads_change_nothing(
    kind: str, layers: int, directions: int, steps: int, batch: int
) -> None:
    """Layers, directions and rows of a batch run side by side: of some steps each (16)."""
    made = many(kind, layers, directions, 40 if kind == "lstm" and batch == 3 else None)
    x = torch.randn(steps, batch, 24)
    expected = run_with(1, made, x, directions)
    for threads in (2, 3, 8):
        for one, other in zip(run_with(threads, made, x, directions), expected, strict=True):
            assert one.equal(other)


@needs_compiler
def test_threads_change_nothing_of_weights_that_all_cores_share() -> None:
    made = layer("lstm", (24, 400, None), bias=True, reverse=False)
    x = torch.randn(STEPS, 2, 24)
    for one, other in zip(run_with(2, [made], x, 1), run_with(1, [made], x, 1), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("directions", [1, 2])
def test_without_the_library_the_reference_runs(
    monkeypatch: pytest.MonkeyPatch, directions: int
) -> None:
    made = many("gru", 2, directions, None)
    x = torch.randn(STEPS, BATCH, 24)
    expected = run_with(1, made, x, directions)
    monkeypatch.setattr(f"{run_layers.__module__}.runtime", lambda: Loaded("none"))
    for one, other in zip(run_with(1, made, x, directions), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_near_torchs_float_layer(kind: str) -> None:
    made = layer(kind, (16, 24, None), bias=True, reverse=False)
    modules = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
    how = {"nonlinearity": kind[4:]} if kind.startswith("rnn") else {}
    module = modules[kind](16, 24, **how)
    with torch.no_grad():
        for target, each in (("ih", made.of_input), ("hh", made.of_state)):
            values = each.integers * each.scales[:, None]
            getattr(module, f"weight_{target}_l0").copy_(values)
            getattr(module, f"bias_{target}_l0").copy_(each.bias)
        x, first = torch.randn(STEPS, BATCH, 16), start(made, BATCH)
        hx = first.h[None] if first.c is None else (first.h[None], first.c[None])
        expected = module(x, hx)[0]
    out = torch.empty(STEPS, BATCH, 24)
    reference(made, x, first, out)
    assert sqnr_db(expected, out) > 34  # of 8 bits in each product

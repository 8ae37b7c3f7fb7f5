"""The kernel against its reference, and the reference against torch's float layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.backends.recurrent.layer import (
    GATES,
    KINDS,
    MOST,
    Layer,
    State,
    Weight,
    reference,
    run_layer,
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
    ends = [run(made, x, first, out) for run, out in zip((run_layer, reference), outs, strict=True)]
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
        run_layer(made, torch.full((1, 1, 64), sign), State(torch.zeros(1, 4)), out)
        assert torch.allclose(out, torch.full_like(out, 64.0 * MOST))


@needs_compiler
def test_tensors_that_are_not_in_order() -> None:
    made = layer("gru", (8, 4, None), bias=True, reverse=False)
    x = torch.randn(BATCH, 8, STEPS).permute(2, 0, 1)
    first = start(made, BATCH)
    out = torch.zeros(BATCH, STEPS, 8)
    run_layer(made, x, first, out[..., 4:].transpose(0, 1))
    expected = torch.empty(STEPS, BATCH, 4)
    run_layer(made, x.contiguous(), first, expected)
    assert out[..., 4:].transpose(0, 1).equal(expected)
    assert out[..., :4].eq(0).all()


@needs_compiler
def test_threads_change_nothing() -> None:
    made = layer("lstm", (256, 128, None), bias=True, reverse=False)
    x, first = torch.randn(STEPS, 4, 256), start(made, 4)
    outs = [torch.empty(STEPS, 4, 128) for _ in range(2)]
    before = torch.get_num_threads()
    try:
        for threads, out in zip((1, 2), outs, strict=True):
            torch.set_num_threads(threads)
            run_layer(made, x, first, out)
    finally:
        torch.set_num_threads(before)
    assert outs[0].equal(outs[1])


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

"""Int8 attention in one step: which steps it replaces, and that it computes what they do."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import quantfx
from quantfx import Config, backends
from quantfx.backends.checks import targets
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region, region_calls
from quantfx.backends.direct.rules import fuse_attention
from quantfx.backends.direct.runtime.plan import Plan
from quantfx.backends.direct.runtime.steps import Attention, Lookup, Softmax
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.patterns.errors import QuantfxWarning
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, QParams, make_graph, quantize, round_trip

U8 = QParams(0.02, 131, 0, 255, torch.uint8)
# Of 7 bits, so that no pair of products saturates on any CPU.
U7 = QParams(0.03, 120, 64, 191, torch.uint8)
S7 = QParams(0.03, 5, -64, 63, torch.int8)
SHARES = QParams(1 / 255, 0, 0, 255, torch.uint8)
OUT = QParams(0.02, 128, 0, 255, torch.uint8)


def attention(
    masks: int = 0,
    *,
    key: QParams = U7,
    value: QParams = S7,
    shares: QParams = SHARES,
    out: QParams | None = OUT,
    softmax: Any = A.softmax.int,
    seen: tuple[str, ...] = (),
) -> GraphModule:
    """Return ``softmax(q @ k.T * 0.3 + masks) @ v``; ``seen`` names further results."""

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        q, k, v = (round_trip(x, p) for x, p in zip(inputs, (U8, key, value), strict=False))
        scores = A.mul.Tensor(A.matmul.default(q, A.transpose.int(k, -1, -2)), 0.3)
        for mask in inputs[3 : 3 + masks]:
            scores = A.add.Tensor(scores, mask)
        rounded = quantize(softmax(scores, -1), shares)
        y = A.matmul.default(
            torch.ops.quantized_decomposed.dequantize_per_tensor.default(rounded, *shares), v
        )
        found = {"scores": scores, "shares": rounded}
        return [y if out is None else quantize(y, out), *(found[name] for name in seen)]

    return make_graph(Draw(0), 3 + masks, build)


def normal(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def plan_of(graph: GraphModule, inputs: tuple[Tensor, ...]) -> Plan:
    return Region(graph).plan(inputs)


def is_fused(graph: GraphModule, inputs: tuple[Tensor, ...]) -> bool:
    steps = plan_of(graph, inputs).program.steps
    fused = any(isinstance(step, Attention) for step in steps)
    assert fused != any(isinstance(step, Softmax) for step in steps)
    return fused


def close(graph: GraphModule, inputs: tuple[Tensor, ...]) -> None:
    """Within a step of the q/dq graph, and of the steps one by one."""
    (found, *_), (expected, *_) = Region(graph)(*inputs), graph(*inputs)
    if expected.dtype.is_floating_point:
        # One weight may be rounded the other way, as its exponential is not torch's to the bit.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=4 / 255)
        assert (found - expected).abs().mean() < 1e-4
    else:
        assert (found.int() - expected.int()).abs().max() <= 1


SHAPES = [
    ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)),
    ((1, 2, 1, 64), (1, 2, 77, 64), (1, 2, 77, 40)),
    ((2, 33, 3), (2, 16, 3), (2, 16, 17)),
    ((9, 16), (33, 16), (33, 5)),
    ((2, 2, 3, 6, 8), (2, 2, 1, 18, 8), (2, 2, 1, 18, 8)),
    ((3, 4, 8), (1, 6, 8), (3, 6, 8)),
    ((2, 4, 130, 32), (2, 4, 130, 32), (2, 4, 130, 32)),
]


@pytest.mark.parametrize("out", [None, OUT], ids=["float", "int8"])
@pytest.mark.parametrize(("key", "value"), [*product((U7, S7), (U7, S7))], ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_is_within_one_step(shapes: Any, key: QParams, value: QParams, out: QParams | None) -> None:
    graph, inputs = attention(key=key, value=value, out=out), normal(*shapes)
    assert is_fused(graph, inputs)
    close(graph, inputs)


@pytest.mark.parametrize("shares", [SHARES, QParams(1 / 100, 11, 4, 90, torch.uint8)], ids=str)
def test_weights_keep_their_scale_zero_point_and_range(shares: QParams) -> None:
    graph, inputs = attention(shares=shares), normal(*SHAPES[0])
    assert is_fused(graph, inputs)
    close(graph, inputs)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 1, 5, 7), (2, 1, 1, 7), (2, 3, 5, 7)], ids=str)
@pytest.mark.parametrize("masks", [1, 2])
def test_masks(shape: tuple[int, ...], masks: int) -> None:
    keeps = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    keeps.view(-1, shape[-1])[0] = False  # a row of nothing yields zeros
    mask = torch.zeros(shape).masked_fill(~keeps, float("-inf"))
    graph = attention(masks, softmax=A._safe_softmax.default)
    inputs = (*normal(*SHAPES[0]), mask, torch.randn(5, 7))[: 3 + masks]
    assert is_fused(graph, inputs)
    close(graph, inputs)


def test_a_row_of_nothing_is_nan_as_torch_says() -> None:
    mask = torch.full((5, 7), float("-inf"))
    mask[1:] = 0
    graph, inputs = attention(1, out=None), (*normal(*SHAPES[0]), mask)
    assert is_fused(graph, inputs)
    close(graph, inputs)


def test_three_masks_are_added_by_steps_of_their_own() -> None:
    """A step adds two; the rest is left to its own step, which then reads the scores."""
    graph = attention(3)
    inputs = (*normal(*SHAPES[0]), *normal((5, 7), (5, 7), (5, 7)))
    assert not is_fused(graph, inputs)
    close(graph, inputs)


@pytest.mark.parametrize("seen", ["scores", "shares"])
def test_what_others_read_is_computed(seen: str) -> None:
    graph, inputs = attention(seen=(seen,)), normal(*SHAPES[0])
    assert not is_fused(graph, inputs)
    close(graph, inputs)


def test_the_largest_sums_are_exact() -> None:
    """Keys of 7 bits and queries of 8, all at their ends."""
    query, key, value = (
        torch.full((4, 64), 9.0),
        torch.full((40, 64), 9.0),
        torch.full((40, 64), 9.0),
    )
    for signs in product((1, -1), repeat=3):
        inputs = tuple(s * x for s, x in zip(signs, (query, key, value), strict=True))
        graph = attention(out=QParams(0.02, 128, 0, 255, torch.uint8))
        assert is_fused(graph, inputs)
        close(graph, inputs)


def test_values_that_are_not_in_order() -> None:
    """Keys that are stored turned, and every other value of a row."""
    q, k, v = normal((2, 5, 16), (2, 16, 7), (2, 7, 24))
    inputs = q[..., ::2], k[:, ::2].transpose(1, 2), v[..., ::3]
    graph = attention()
    assert is_fused(graph, inputs)
    close(graph, inputs)


def test_threads_change_nothing() -> None:
    graph, inputs = attention(), normal(*SHAPES[-1])
    before, found = torch.get_num_threads(), list[Tensor]()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(Region(graph)(*inputs)[0])
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


def test_values_inside_are_those_of_steps_one_by_one() -> None:
    graph, inputs = attention(seen=("scores",)), normal(*SHAPES[0])
    (scores,) = (node.name for node in graph.graph.nodes if node.target is A.mul.Tensor)
    inside = Region(attention()).values_inside(inputs)
    torch.testing.assert_close(inside[scores], graph(*inputs)[1], rtol=1e-5, atol=1e-5)


def between(name: str, scores: Any, mask: Any) -> Any:
    """Return what a softmax is taken of: something that is no mask added to scores."""
    turned = A.transpose.int(scores, -1, -2)
    return {
        "turned before": lambda: A.add.Tensor(turned, mask),
        "turned behind": lambda: A.transpose.int(A.add.Tensor(scores, mask), -1, -2),
        "flat": lambda: A.add.Tensor(A.view.default(scores, [6, 5, 5]), mask),
        "twice itself": lambda: A.add.Tensor(scores, scores),
        "and itself turned": lambda: A.add.Tensor(scores, turned),
        "rounded": lambda: round_trip(A.add.Tensor(scores, mask), U8),
    }[name]()


@pytest.mark.parametrize(
    "name",
    ["turned before", "turned behind", "flat", "twice itself", "and itself turned", "rounded"],
)
def test_what_is_no_mask_is_not_passed_over(name: str) -> None:
    """Of square scores, so that shapes alone do not tell."""

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        q, k, v = (round_trip(x, p) for x, p in zip(inputs, (U8, U7, S7), strict=False))
        scores = A.mul.Tensor(A.matmul.default(q, A.transpose.int(k, -1, -2)), 0.3)
        weights = A.softmax.int(between(name, scores, inputs[3]), -1)
        if name == "flat":
            v = A.view.default(v, [6, 5, 8])
        return [quantize(A.matmul.default(round_trip(weights, SHARES), v), OUT)]

    graph = make_graph(Draw(0), 4, build)
    inputs = normal((2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8), (5, 5))
    assert not is_fused(graph, inputs)
    close(graph, inputs)


def test_weights_that_are_read_with_another_scale_are_a_step() -> None:
    """Halved, which changes the scale and not the bytes."""

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        q, k, v = (round_trip(x, p) for x, p in zip(inputs, (U8, U7, S7), strict=True))
        scores = A.matmul.default(q, A.transpose.int(k, -1, -2))
        weights = A.mul.Tensor(round_trip(A.softmax.int(scores, -1), SHARES), 0.5)
        half = SHARES._replace(scale=SHARES.scale / 2)
        return [quantize(A.matmul.default(round_trip(weights, half), v), OUT)]

    graph, inputs = make_graph(Draw(0), 3, build), normal(*SHAPES[0])
    assert not is_fused(graph, inputs)
    close(graph, inputs)


@pytest.mark.parametrize("empty", ["query", "key"])
def test_a_slice_of_nothing(empty: str) -> None:
    """Empty within a region, whose inputs are not."""

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        q, k, v = (round_trip(x, p) for x, p in zip(inputs, (U8, U7, S7), strict=True))
        if empty == "query":
            q = A.slice.Tensor(q, -2, 0, 0)
        else:
            k, v = (A.slice.Tensor(each, -2, 0, 0) for each in (k, v))
        scores = A.matmul.default(q, A.transpose.int(k, -1, -2))
        return [quantize(A.matmul.default(round_trip(A.softmax.int(scores, -1), SHARES), v), OUT)]

    graph, inputs = make_graph(Draw(0), 3, build), normal(*SHAPES[0])
    region, (expected,) = Region(graph), graph(*inputs)
    told = (
        pytest.warns(QuantfxWarning, match="multiplies nothing")
        if empty == "key"
        else nullcontext()
    )
    with told:
        (found,) = region(*inputs)
    assert found.equal(expected)


def test_amx_multiplies_whole_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_attention, "host", lambda: targets.TARGETS["amx"])
    graph, inputs = attention(), normal(*SHAPES[0])
    assert not is_fused(graph, inputs)
    close(graph, inputs)


def test_a_program_without_attention_is_as_it_was() -> None:
    graph, inputs = attention(seen=("shares",)), normal(*SHAPES[0])
    program = translate(graph, [layout_of(x) for x in inputs])
    before = list(program.steps)
    fuse_attention.fuse_attention(program)
    assert program.steps == before


class Block(nn.Module):
    """Self-attention of four heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (each.unflatten(-1, (4, 8)).transpose(1, 2) for each in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


def test_a_causal_network_is_one_region_of_one_attention() -> None:
    x = torch.randn(2, 10, 32)
    config = Config().op("scaled_dot_product_attention", "static")
    backend = backends.get("x86", kernels="direct")
    result: quantfx.Result = unchecked.quantize(seeded(Block), x, backend=backend, config=config)
    calls = region_calls(lambda: result.module(x))
    assert len(calls) == 1
    steps = calls[0][0].plan(calls[0][1]).program.steps
    (step,) = (step for step in steps if isinstance(step, Attention))
    assert step.mask is not None
    assert step.mask.buffer.place == "constant"  # made once
    assert not any(
        isinstance(step, Lookup) and step.table for step in steps
    )  # it turns bytes itself
    assert all(each.within(1, 1e-5) for each in result.compare_sites())

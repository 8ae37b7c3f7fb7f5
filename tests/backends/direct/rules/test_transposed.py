"""Transposed convolutions in plans: by phases or by a spread source, as the q/dq graph has them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import quantfx
from quantfx import backends
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.runtime.steps import Convolution
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.backends.x86 import pattern_set
from quantfx.passes.quant.qparams import saturates
from tests import unchecked
from tests.backends.direct.qdq_cases import (
    A,
    Case,
    Draw,
    QParams,
    add_weight,
    make_graph,
    quantize,
    round_trip,
)
from tests.backends.direct.test_kernels import check


class Shape(NamedTuple):
    """Of a transposed convolution, in each dimension."""

    source: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    extra: tuple[int, ...]
    gap: tuple[int, ...]


PHASES = {
    "side by side": Shape((5, 7), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1)),
    "one dimension": Shape((9,), (16,), (8,), (4,), (0,), (1,)),
    "overlapping": Shape((5, 6), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1)),
    "uneven": Shape((4, 5), (3, 5), (2, 3), (1, 2), (1, 0), (1, 1)),
    "one stride is 1": Shape((6, 5), (3, 4), (1, 2), (1, 1), (0, 0), (1, 1)),
    "cut off": Shape((7, 8), (5, 5), (3, 3), (3, 3), (2, 2), (1, 1)),
    "three dimensions": Shape((3, 4, 3), (2, 3, 2), (2,) * 3, (0, 1, 0), (0, 1, 0), (1,) * 3),
}
SPREAD = {
    "holes": Shape((4, 4), (1, 1), (2, 2), (0, 0), (1, 1), (1, 1)),
    "dilated": Shape((6, 5), (2, 2), (3, 2), (2, 1), (0, 1), (3, 2)),
}


def case(shape: Shape, seed: int) -> Case:
    """A transposed convolution from 6 to 5 channels, relu and quantize behind it."""
    draw = Draw(seed)
    add_weight(draw, "w", 6, 5, *shape.kernel, axis=1)
    draw.constant("b", draw.normal(5))
    n, source, result = len(shape.source), draw.qparams(), QParams(0.04, 10, 0, 255, torch.uint8)
    op = getattr(A, f"conv_transpose{n}d")
    call = op.input if n > 1 else op.default

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        w, x = model.weight("w", 1), round_trip(inputs[0], source)
        y = call(x, w, model.b, shape.stride, shape.padding, shape.extra, 1, shape.gap)
        return [quantize(A.relu.default(y), result)]

    return Case(make_graph(draw, 1, build), (draw.normal(2, 6, *shape.source),), "transposed")


@pytest.mark.parametrize("name", [*PHASES, *SPREAD])
def test_is_within_a_step(name: str) -> None:
    for seed in range(3):
        made = case((PHASES | SPREAD)[name], seed)
        (integers,) = made.graph(*made.inputs)
        assert len(integers.unique()) > 20, "it computes something"
        program = translate(made.graph, [layout_of(x) for x in made.inputs])
        [step] = [each for each in program.steps if isinstance(each, Convolution)]
        assert (len(step.weight) > 5) == (name in PHASES), "a channel of each phase"
        check(made)


def decoder() -> nn.Module:
    """Up, down, and up again."""
    return nn.Sequential(
        nn.ConvTranspose2d(4, 4, 2, 2, groups=2),
        nn.Conv2d(4, 8, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
    ).eval()


def test_a_decoder_is_one_plan_and_groups_stay_float() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    backend = backends.get("x86", target="avx2")
    result = unchecked.quantize(decoder(), (x,), backend=backend)
    kernels = {site.kind: site.kernel for site in result.report.sites}
    assert kernels == {"conv2d": "direct.convolution", "conv_transpose2d": "direct.convolution"}
    [reason] = [each.reason for each in result.report.skipped if "conv_transpose" in each.op]
    assert "groups" in reason
    [weight] = [
        each
        for name, each in result.quantized.named_buffers()
        if each.dtype == torch.int8 and each.shape[:2] == (8, 6)
    ]
    assert not saturates(weight.transpose(0, 1), 255, "blocks").any()
    expected, found = result.quantized(x), result.module(x)
    assert float((expected - found).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_without_plans_it_has_a_template_but_no_promise() -> None:
    patterns = pattern_set(plans=True)
    backend = backends.get("x86", patterns=patterns, kernels="onednn")
    x = torch.randn(2, 4, 8, 8)
    result = unchecked.quantize(decoder(), (x,), backend=backend)
    assert {s.kind: s.kernel for s in result.report.sites}["conv_transpose2d"] == "dq-op-q"
    assert "conv_transpose" not in backends.get("x86", kernels="onednn").recipe.patterns.names


def test_it_is_trained_with_the_batch_norm_behind_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    prepared = quantfx.prepare_qat(decoder().train(), (x,))
    prepared(x).square().mean().backward()
    result = quantfx.convert_qat(prepared)
    assert not result.quantized.graph.find_nodes(op="call_function", target=A.batch_norm.default)
    kernels = {site.kind: site.kernel for site in result.report.sites}
    assert kernels["conv_transpose2d"] == "direct.convolution"
    expected, found = result.quantized(x), result.module(x)
    assert float((expected - found).abs().max()) <= 1e-5 * float(expected.abs().max())

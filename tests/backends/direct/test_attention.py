"""Attention inside a region: torch's operator, as matrix products and a softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import quantfx
from quantfx import Config, backends
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.tools.models.bert import Bert, BertConfig
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, make_graph, quantize
from tests.backends.direct.test_edges import U8

LAYERS = 2
QUERY, KEY = (2, 4, 5, 8), (2, 4, 7, 8)
GROUPED, ONE_HEAD, WIDE = (2, 2, 7, 8), (2, 1, 7, 8), (2, 4, 7, 12)


def attention(*, integer: bool = False, **options: Any) -> Any:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        query, key, value, *mask = inputs
        given = mask[0] if mask else None
        y = A.scaled_dot_product_attention.default(query, key, value, given, **options)
        return [quantize(y, U8) if integer else y]

    return build


def heads(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def close(graph: Any, *inputs: Tensor) -> None:
    region = Region(graph)
    translate(region.graph, [layout_of(x) for x in inputs])  # not the graph itself, in float
    for found, expected in zip(region(*inputs), region.graph(*inputs), strict=True):
        if found.dtype.is_floating_point:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        else:
            assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("integer", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ((QUERY, KEY, KEY), {}),
        ((QUERY, KEY, WIDE), {"scale": 0.3}),
        ((QUERY, KEY, KEY), {"is_causal": True}),
        ((KEY, QUERY, QUERY), {"is_causal": True}),
        ((QUERY, GROUPED, GROUPED), {"enable_gqa": True}),
        ((QUERY, GROUPED, GROUPED), {"enable_gqa": True, "is_causal": True}),
        (((3, 5, 8), (3, 7, 8), (3, 7, 8)), {}),
        (((5, 8), (7, 8), (7, 8)), {}),
        ((QUERY, (1, 1, 7, 8), (1, 1, 7, 8)), {}),
        ((QUERY, ONE_HEAD, ONE_HEAD), {"enable_gqa": True}),
    ],
    ids=str,
)
def test_is_what_torch_computes(shapes: Any, options: dict[str, Any], integer: bool) -> None:
    inputs = heads(*shapes)
    close(make_graph(Draw(0), 3, attention(integer=integer, **options)), *inputs)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("key", [KEY, GROUPED, ONE_HEAD], ids=["", "grouped", "one_head"])
@pytest.mark.parametrize(
    "shape",
    [(5, 7), (1, 7), (2, 1, 5, 7), (2, 1, 1, 7), (4, 5, 7), (2, 4, 5, 7), (1, 1, 5, 1)],
)
def test_masks(shape: tuple[int, ...], key: tuple[int, ...], kind: str) -> None:
    keeps = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    keeps.view(-1, shape[-1])[0] = False  # a row of nothing yields zeros
    mask = keeps if kind == "bool" else torch.zeros(shape).masked_fill(~keeps, float("-inf"))
    graph = make_graph(Draw(0), 4, attention(enable_gqa=key != KEY))
    close(graph, *heads(QUERY, key, key), mask)
    wide = mask.expand(2, 4, 5, 7)
    close(graph, *heads(QUERY, key, key), wide)


def test_rows_that_overlap() -> None:
    """Windows of one row, which share memory."""
    long = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0))
    query, key = long.unfold(2, 8, 3), long.unfold(2, 8, 2)
    close(make_graph(Draw(0), 3, attention()), query, key, key)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.matmul.default(inputs[0], A.transpose.int(inputs[1], -1, -2))]

    close(make_graph(Draw(0), 2, build), query, key)


def test_a_stored_mask() -> None:
    draw = Draw(0)
    draw.constant("mask", torch.ones(5, 7, dtype=torch.bool).tril())

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.scaled_dot_product_attention.default(*inputs, model.mask)]

    close(make_graph(draw, 3, build), *heads(QUERY, KEY, KEY))


def test_heads_that_were_split() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        parts = (A.transpose.int(A.view.default(x, [2, -1, 4, 8]), 1, 2) for x in inputs)
        y = A.scaled_dot_product_attention.default(*parts)
        y = A.flatten.using_ints(A.transpose.int(y, 1, 2), 2)
        return [quantize(y, U8)]

    close(make_graph(Draw(0), 3, build), *heads((2, 5, 32), (2, 7, 32), (2, 7, 32)))


def test_weights_that_drop_out_are_not_taken() -> None:
    graph = make_graph(Draw(0), 3, attention(dropout_p=0.1))
    with pytest.raises(Untranslatable, match="drops weights out with a probability of 0.1"):
        translate(graph, [layout_of(x) for x in heads(QUERY, KEY, KEY)])


def bert(*, masked: bool, config: Config | None = None) -> tuple[quantfx.Result, Any]:
    """Return a quantized network of LAYERS layers, and its inputs."""
    sizes = BertConfig(
        layers=LAYERS, hidden=64, heads=4, vocabulary=128, positions=32, fused_attention=True
    )
    tokens = torch.randint(128, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, 9:] = 0 if masked else 1
    inputs, backend = (tokens, mask), backends.get("x86", kernels="direct")
    model = Bert(sizes).eval()
    return unchecked.quantize(model, inputs, backend=backend, config=config), inputs


def check_regions(result: quantfx.Result, inputs: Any, target: str) -> None:
    """There is a region a layer, with one call of ``target`` each; all computes what it should."""
    regions = [each for each in result.module.modules() if isinstance(each, Region)]
    assert len(regions) <= LAYERS + 1
    assert all(each.within(1, 1e-5) for each in result.compare_sites())
    texts = [str(node.target) for each in regions for node in each.graph.graph.nodes]
    assert sum(target in text for text in texts) == LAYERS
    for found, expected in zip(result.module(*inputs), result.quantized(*inputs), strict=True):
        assert (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_of_bert_is_one_region(masked: bool) -> None:
    check_regions(*bert(masked=masked), "scaled_dot_product")


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_int8_is_in_the_same_region(masked: bool) -> None:
    asked = Config().op("scaled_dot_product_attention", "static")
    result, inputs = bert(masked=masked, config=asked)
    check_regions(result, inputs, "softmax")
    (row,) = (row for row in result.report.rows if row.kind == "matmul")
    assert (row.planned, row.lowered, row.kernels) == (4, 4, {"direct.matmul": 4})

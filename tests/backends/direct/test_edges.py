"""What strangers' models bring: shapes, tensors and numbers that are not the usual ones."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantfx
from quantfx.backends.direct import plans
from quantfx.backends.direct.region import Region
from tests import unchecked
from tests.backends.direct.qdq_cases import (
    A,
    Draw,
    QParams,
    add_weight,
    dequantize,
    make_graph,
    quantize,
    round_trip,
)
from tests.backends.direct.test_region import agrees, image, residual
from tests.refusals import warned

U8 = QParams(0.02, 128, 0, 255, torch.uint8)
S8 = QParams(0.02, 0, -128, 127, torch.int8)


def quantized(model: nn.Module, *inputs: Tensor, **options: Any) -> quantfx.Result:
    from quantfx import backends

    options.setdefault("backend", backends.get("x86"))
    return unchecked.quantize(model.eval(), inputs, **options)


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def exact(graph: Any, *inputs: Tensor) -> None:
    region = Region(graph)
    for one, other in zip(region(*inputs), region.graph(*inputs), strict=True):
        assert one.dtype == other.dtype
        if one.dtype.is_floating_point:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            assert (one.int() - other.int()).abs().max() <= 1


def test_an_image_without_a_batch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            pooled = F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1)
            out: Tensor = self.fc(torch.flatten(pooled, 0))
            return out

    x = seeded(3, 12, 12)
    result = quantized(Net(), x)
    assert (result.module(x) - result.quantized(x)).abs().max() < 0.1


def test_a_module_that_was_stored_runs_when_loaded() -> None:
    region = residual()
    expected = region(image())[0]
    stream = io.BytesIO()
    torch.save(region, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    assert torch.equal(loaded(image())[0], expected)
    x = seeded(1, 3, 9, 9)
    result = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), x)
    stream = io.BytesIO()
    torch.save(result.module, stream)
    stream.seek(0)
    assert torch.equal(torch.load(stream, weights_only=False)(x), result.module(x))


def test_a_shape_that_no_plan_computes_runs_in_float_and_says_so() -> None:
    free = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(4))
    result = quantized(model, seeded(1, 3, 16, 16), dynamic_shapes=free)
    odd = seeded(1, 3, 18, 18)
    with warned("no-plan", says="overlap"):
        found = result.module(odd)
    torch.testing.assert_close(found, result.quantized(odd))


def test_a_plan_that_onednn_refuses_runs_in_float_and_says_so() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.matmul.default(inputs[0], A.transpose.int(inputs[0], -1, -2))]

    region = Region(make_graph(Draw(0), 1, build))
    overlapping = seeded(2, 60).unfold(1, 40, 5).view(2, 5, 5, 8)  # matrices share memory
    with warned("no-plan", site="matmul_default", says="descriptor"):
        (found,) = region(overlapping)
    assert torch.equal(found, *region.graph(overlapping))


def test_what_torch_refuses_within_a_rule_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.softmax.int(inputs[0], -1)]

    def rule(translation: Any, task: Any) -> Any:
        return torch.empty(2, 3, device="meta").view(7)

    monkeypatch.setattr(plans, "rules", lambda: {A.softmax.int: rule})
    region, x = Region(make_graph(Draw(0), 1, build)), seeded(2, 3)
    with warned("no-plan", site="softmax_int", says="size"):
        (found,) = region(x)
    assert torch.equal(found, *region.graph(x))


def test_many_operators_behind_a_convolution() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            for factor in (0.5, 1.5, 0.7, 1.1, 0.9):
                y = y * factor + 0.1
            return F.relu(y)

    x = seeded(1, 3, 8, 8)
    result = quantized(Net(), x)
    torch.testing.assert_close(result.module(x), result.quantized(x), atol=1e-4, rtol=1e-4)


def test_weights_that_are_loaded_are_packed_anew() -> None:
    region = residual(seed=0)
    other = residual(seed=0)
    other.graph.get_buffer("w").neg_()
    region(image())
    region.load_state_dict(other.state_dict(), assign=True)
    assert agrees(region, image())
    assert torch.equal(region(image())[0], other(image())[0])


def test_tensors_that_are_not_plain_memory() -> None:
    region = residual()
    x = image()
    expected = region(x)[0]
    negative = torch.complex(x, -x).conj().imag
    assert negative.is_neg()
    assert torch.equal(negative, x)
    torch.testing.assert_close(region(negative)[0], expected, atol=0.1, rtol=0)
    many = torch.stack([x, x])
    torch.testing.assert_close(
        torch.vmap(lambda each: region(each)[0])(many)[0], expected, atol=0.1, rtol=0
    )


def test_a_square_weight_and_its_transposed() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 16, 16)
    draw.constant("t", draw.tensors["w"].t())
    draw.constant("t_scales", draw.tensors["w_scales"])
    draw.constant("t_zeros", draw.tensors["w_zeros"])

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(inputs[0], U8)
        return [A.linear.default(x, model.weight(name), None) for name in "wt"]

    exact(make_graph(draw, 1, build), seeded(3, 16))


@pytest.mark.parametrize(("first", "second"), [(U8, S8), (S8, U8)])
def test_integers_that_stay_what_they_are_in_another_dtype(first: QParams, second: QParams) -> None:
    draw = Draw(0)
    add_weight(draw, "w", 8, 16)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(round_trip(inputs[0], first), second)
        return [A.linear.default(x, model.weight("w"), None)]

    exact(make_graph(draw, 1, build), seeded(3, 16))


def test_a_view_of_what_lies_channels_last() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 4, 3, 1, 1)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        y = A.conv2d.default(round_trip(inputs[0], U8), model.weight("w"), None)
        return [A.relu.default(A.view.default(y, [2, 4 * 5 * 6]))]

    exact(make_graph(draw, 1, build), seeded(2, 3, 5, 6))


def test_windows_without_a_value() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(inputs[0], U8)
        return [quantize(A.max_pool2d.default(x, [2, 2], [1, 1], [1, 1], [3, 3]), U8)]

    exact(make_graph(Draw(0), 1, build), seeded(1, 3, 2, 2))


def test_numbers_that_are_none() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = inputs[0]
        return [
            A.sigmoid.default(x),
            A.tanh.default(x),
            A.silu.default(x),
            A.softmax.int(A.add.Tensor(x, 0.0), -1),
            quantize(A.relu.default(x), U8),
        ]

    inf, nan = float("inf"), float("nan")
    x = torch.tensor([[1.0, nan, 2.0], [-inf, -inf, -inf], [3e38, -1e38, 0.0]])
    exact(make_graph(Draw(0), 1, build), x)


def test_bounds_the_wrong_way_round() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 4, 8)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        y = A.linear.default(round_trip(inputs[0], U8), model.weight("w"), None)
        return [A.clamp.default(y, 1.0, -1.0)]

    exact(make_graph(draw, 1, build), seeded(3, 8))


def test_single_places_are_a_matrix_product() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 24, 16, 1, 1)
    draw.constant("b", draw.normal(24))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        q = quantize(A.adaptive_avg_pool2d.default(round_trip(inputs[0], U8), [1, 1]), U8)
        y = A.conv2d.default(dequantize(q, U8), model.weight("w"), model.b)
        return [y, quantize(A.relu.default(y), U8)]

    graph = make_graph(draw, 1, build)
    x = seeded(2, 16, 5, 5)
    exact(graph, x)
    assert not any("ref" in name for name in Region(graph).plan((x,)).names())


def test_contexts_are_freed_before_their_plan() -> None:
    region = residual()
    region(image())
    plan = region.plan((image(),))
    order: list[str] = []
    for handle, name in ((plan.handle, "plan"), (plan._idle[0].handle, "context")):

        def freed(address: int, free: Any = handle._free, name: str = name) -> None:
            order.append(name)
            free(address)

        handle._free = freed
    del plan, handle
    region.forget_plans()
    assert order == ["context", "plan"]


def test_a_copy_of_the_module_runs() -> None:
    x = seeded(1, 3, 9, 9)
    result = quantized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), x)
    expected = result.module(x)
    copied = copy.deepcopy(result.module)
    for name, tensor in copied.named_buffers():
        if name.endswith("_s8"):
            tensor.zero_()
    assert not torch.equal(copied(x), expected)
    assert torch.equal(result.module(x), expected)


@pytest.mark.parametrize("given", [(0, 1, 0, 1), (2, 0), (1, 2, 3, 0)])
def test_padding_between_convolutions_is_of_zero_points(given: tuple[int, ...]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(F.pad(F.relu6(self.first(F.pad(x, given))), given))
            return out

    x = seeded(2, 3, 12, 12)
    result = quantized(Net(), x)
    assert [type(each) for each in result.module.modules()].count(Region) == 1
    assert all(site.within(1, 1e-5) for site in result.compare_sites())
    assert (result.module(x) - result.quantized(x)).abs().max() < 0.1


@pytest.mark.parametrize("how", [{"mode": "reflect"}, {"value": 1.0}])
def test_other_padding_is_outside(how: dict[str, Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(F.pad(self.first(x), (1, 1, 1, 1), **how))
            return out

    from quantfx import backends

    x = seeded(2, 3, 12, 12)
    result = quantized(Net(), x, backend=backends.get("x86", kernels="direct"))
    assert [type(each) for each in result.module.modules()].count(Region) == 2
    assert (result.module(x) - result.quantized(x)).abs().max() < 0.1


def test_a_product_of_activations_is_compared_with_its_own_dequantizes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x @ x.transpose(-1, -2))
            return out

    config = quantfx.Config().op("matmul", "static")
    result = quantized(Net(), seeded(4, 8), config=config)
    assert [type(each) for each in result.module.modules()].count(Region) == 1
    compared = {each.site.node: each for each in result.compare_sites()}
    assert set(compared) == {"matmul", "linear"}
    assert all(each.within(1, 1e-5) for each in compared.values())


def test_values_between_two_integers_are_rounded_as_torch_does() -> None:
    """torch's inverse of a scale is rounded from double precision, which one of float32 is not."""
    u8 = QParams(0.02196122546990257, 61, 0, 255, torch.uint8)
    assert torch.tensor(u8.scale).reciprocal() != torch.tensor(1 / u8.scale)
    between = (torch.arange(-61, 194) + 0.5) * u8.scale
    up, down = (torch.full_like(between, float(sign)) for sign in ("inf", "-inf"))
    x = torch.cat([between, between.nextafter(up), between.nextafter(down)])
    graph = make_graph(Draw(0), 1, lambda model, inputs: [quantize(A.relu.default(inputs[0]), u8)])
    (found,) = Region(graph)(x)
    assert torch.equal(found, *graph(x))

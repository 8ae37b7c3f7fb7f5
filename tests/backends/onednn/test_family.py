"""What the family ``onednn`` takes and refuses, and how it spells what torch's kernels do not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.onednn.ops import QCONV, QLINEAR, register_fakes
from quantfx.backends.onednn.post_ops import FUSED_BY
from quantfx.passes.errors import ContractError
from quantfx.passes.quant.spec import QuantSpec
from tests import unchecked
from tests.activations import ACTIVATIONS
from tests.export_cases import Net

X86 = backends.get("x86")
IMAGE = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
AFFINE_WEIGHT = QuantSpec(torch.int8, -128, 127, axis=0, observer="min_max")
# Six bits: right on every CPU, as there is no pair bound for one scale.
PER_TENSOR_WEIGHT = QuantSpec(torch.int8, -64, 63, symmetric=True, observer="min_max")
SIGNED = QuantSpec(torch.int8, -128, 127, observer="min_max")


def quantize(model: nn.Module, x: Tensor, **options: Any) -> quantfx.Result:
    torch.manual_seed(0)
    return unchecked.quantize(model.eval(), (x,), **({"backend": X86} | options))


def calls(result: quantfx.Result, op: Any) -> list[tuple[Any, ...]]:
    return [node.args for node in result.module.graph.find_nodes(op="call_function", target=op)]


@pytest.mark.parametrize(("layer", "x", "spec", "reason"), [
    (nn.Conv2d(4, 4, 3), IMAGE, {"conv_weight": AFFINE_WEIGHT}, "has zero points, the kernel knows"),
    (nn.Linear(8, 8), ROWS, {"linear_weight": AFFINE_WEIGHT}, "has zero points, the kernel knows"),
    (nn.Conv2d(4, 4, 3), IMAGE, {"act": SIGNED}, "is torch.int8, the kernel takes torch.uint8"),
])  # fmt: skip
def test_what_a_kernel_would_compute_wrongly_is_refused(
    layer: nn.Module, x: Tensor, spec: dict[str, QuantSpec], reason: str
) -> None:
    result = quantize(layer, x, backend=X86.with_specs(**spec))
    [site] = result.report.sites
    assert reason in site.reason
    with pytest.raises(ContractError):  # on a CPU without VNNI, for its range as well
        result.compile()


@pytest.mark.parametrize(("layer", "x", "spec"), [
    (nn.Conv2d(4, 4, 3), IMAGE, {"conv_weight": PER_TENSOR_WEIGHT}),
    (nn.Linear(8, 8), ROWS, {"linear_weight": PER_TENSOR_WEIGHT}),
    (nn.Linear(8, 8), ROWS, {"act": SIGNED}),
])  # fmt: skip
def test_other_specs_that_it_takes(layer: nn.Module, x: Tensor, spec: dict[str, QuantSpec]) -> None:
    result = quantize(layer, x, backend=X86.with_specs(**spec))
    assert result.report.lowered == 1
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "conv1d": (lambda: nn.Conv1d(4, 4, 3), IMAGE.flatten(2)),
    "conv2d": (lambda: nn.Conv2d(4, 4, 3), IMAGE),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3), torch.randn(1, 2, 5, 5, 5)),
    "linear": (lambda: nn.Linear(8, 8), ROWS),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_activation_is_fused_where_the_kernel_can_and_computed_everywhere(
    kind: str, activation: str
) -> None:
    make, x = LAYERS[kind]
    module, post_op = ACTIVATIONS[activation]
    result = quantize(nn.Sequential(make(), module), x)
    [args] = calls(result, QLINEAR if kind == "linear" else QCONV)
    assert args[-3] == (post_op if post_op in FUSED_BY[kind] else "none")
    assert all(each.within(1, 1e-5) for each in result.compare_sites())
    torch.testing.assert_close(result.module(x), result.quantized(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "post_op"), [
    (kind, name) for kind, fused in FUSED_BY.items() for name in ("sigmoid", "elu", "gelu", "tanh")
    if name not in fused
])  # fmt: skip
def test_the_list_of_what_kernels_fuse_is_theirs(kind: str, post_op: str) -> None:
    """What is not listed raises when it is called; if it no longer does, the list can grow."""
    make, x = LAYERS[kind]
    op = QLINEAR if kind == "linear" else QCONV
    result = quantize(make(), x)
    [node] = result.module.graph.find_nodes(op="call_function", target=op)
    node.args = (*node.args[:-3], post_op, [], "none" if post_op == "gelu" else "")
    result.module.recompile()
    with pytest.raises(RuntimeError):
        result.module(x)


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv1d(4, 4, 3), (4, 9)), (nn.Conv2d(4, 4, 3), (4, 9, 9)), (nn.Conv3d(2, 4, 3), (2, 5, 5, 5)),
])  # fmt: skip
def test_a_convolution_without_a_batch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    result = quantize(layer, x)
    assert result.module(x).shape == result.quantized(x).shape
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


@pytest.mark.parametrize(("channels", "groups", "kernel", "padding"), [
    (2, 2, 3, 3), (1, 1, 2, 2), (4, 4, 3, 5), (4, 1, 3, 4), (4, 2, 1, 1),
])  # fmt: skip
def test_padding_beyond_the_kernel(channels: int, groups: int, kernel: int, padding: int) -> None:
    """torch 2.13 on AVX512: garbage, if the kernel were given this padding."""
    x = torch.randn(2, channels, 8, 8) + 1.0
    result = quantize(nn.Conv2d(channels, 2 * channels, kernel, 1, padding, groups=groups), x)
    [args] = calls(result, QCONV)
    assert args[8] == [0, 0]
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv2d(8, 16, 1, 2), (4, 8, 32, 32)), (nn.Conv2d(24, 16, 1, (1, 3)), (4, 24, 32, 33)),
    (nn.Conv2d(16, 32, 1, 2, 1, groups=2), (4, 16, 31, 31)), (nn.Conv1d(8, 16, 1, 2), (4, 8, 99)),
    (nn.Conv3d(8, 16, 1, (1, 2, 2)), (4, 8, 6, 12, 12)),
])  # fmt: skip
def test_pixels_that_a_stride_leaves_out(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """torch 2.13 limited to AVX2: different garbage in each call, if the kernel skipped them."""
    x = torch.randn(shape) + 1.0
    result = quantize(layer, x)
    [args] = calls(result, QCONV)
    assert set(args[7]) == {1}
    for _ in range(8):
        assert all(each.within(1, 1e-5) for each in result.compare_sites())


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv2d(4, 8, 4, padding="same"), (2, 4, 8, 8)),
    (nn.Conv1d(4, 8, 4, padding="same", dilation=3), (2, 4, 20)),
    (nn.Conv3d(2, 4, 2, padding="same"), (2, 4, 5, 6)),
])  # fmt: skip
def test_padding_of_different_ends(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """An even kernel with ``padding="same"``; canonicalization leaves it as it is."""
    x = torch.randn(shape) + 1.0
    result = quantize(layer, x)
    assert result.module(x).shape == result.quantized(x).shape
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


def test_integers_stay_in_the_range_that_was_asked_for() -> None:
    """The kernel clamps to 255 where ``reduce_range`` wants 127: the next sums could saturate."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    backend = backends.get("x86", target="any", reduce_range=True)
    result = quantize(model, IMAGE, backend=backend)
    largest = 0

    class Look(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            nonlocal largest
            value = super().run_node(n)
            if any(user.target is QCONV and user.args[0] is n for user in n.users):
                largest = max(largest, int(value.max()))
            return value

    Look(result.module).run(IMAGE * 10)  # far beyond what was calibrated
    assert largest == 127
    big = IMAGE * 10
    torch.testing.assert_close(result.module(big), result.quantized(big), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.compile()(big), result.quantized(big), rtol=1e-4, atol=1e-5)


def test_a_linear_with_relu_and_a_sum_behind_it() -> None:
    """Inductor's own patterns end in an AssertionError on this one."""
    model = Net(lambda f, g, x: f(x).relu() + g(x), nn.Linear(8, 8), nn.Linear(8, 8))
    result = quantize(model, ROWS)
    compiled = result.compile()
    torch.testing.assert_close(compiled(ROWS), result.quantized(ROWS), rtol=1e-4, atol=1e-5)


def test_an_empty_batch() -> None:
    x = torch.randn(4, 8)
    batch = torch.export.Dim("batch", min=0, max=64)
    result = quantize(nn.Linear(8, 3), x, dynamic_shapes=({0: batch},))
    assert result.module(x[:0]).shape == (0, 3)


def test_fakes_are_registered_once_and_agree_with_the_operators() -> None:
    register_fakes()
    register_fakes()
    weight = torch.zeros(6, 4, dtype=torch.int8)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = torch.ops.onednn.qlinear_prepack(mode.from_tensor(weight), None)
    real = torch.ops.onednn.qlinear_prepack(weight, None)
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


@pytest.mark.parametrize("config", ["static", "dynamic", "fp16", "weight-only"])
def test_weights_that_are_views_are_packed_in_order(config: str) -> None:
    layer = nn.Linear(8, 8)
    layer.weight = nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).t())
    result = quantize(layer, ROWS, config=config)
    with torch.no_grad():
        assert torch.allclose(result.module(ROWS), result.quantized(ROWS), atol=0.05)
        assert torch.allclose(result.compile()(ROWS), result.quantized(ROWS), atol=0.05)
        assert torch.allclose(result.quantized(ROWS), layer(ROWS), atol=0.2)

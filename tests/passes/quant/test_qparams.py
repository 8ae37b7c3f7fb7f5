from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import observer as torch_ao

from quantfx.passes.errors import SpecError
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import pair_bounded_scale, qparams_from_range, saturates
from quantfx.passes.quant.scale_floor import SCALE_FLOOR
from quantfx.passes.quant.spec import ObserverName, PairBound, QuantSpec
from tests.refusals import refused

# dtype, quant_min, quant_max, symmetric
RANGES = [
    (torch.uint8, 0, 255, False),
    (torch.uint8, 0, 127, False),
    (torch.uint8, 0, 200, False),
    (torch.int8, -128, 127, False),
    (torch.int8, -64, 63, False),
    (torch.uint8, 0, 255, True),
    (torch.uint8, 0, 127, True),
    (torch.uint8, 0, 200, True),
    (torch.int8, -128, 127, True),
    (torch.int8, -127, 127, True),
    (torch.int8, -64, 63, True),
]


def random_bounds(count: int) -> tuple[Tensor, Tensor]:
    """Return ranges of all sizes that lie below, around and above zero, or are one point."""
    generator = torch.Generator().manual_seed(count)
    size = 10 ** (torch.rand(count, generator=generator) * 12 - 8)
    ends = (torch.rand(2, count, generator=generator) - 0.5) * size
    ends[:, ::7] = ends[0, ::7]
    ends[:, 1::7] = 0.0
    ends[0, 2::7] = 0.0
    low, high = ends.sort(dim=0).values
    return low, high


def torch_ao_qparams(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    full = (spec.quant_min, spec.quant_max) in ((0, 255), (-128, 127))
    custom: dict[str, Any] = {}
    if not full:
        custom = {"quant_min": spec.quant_min, "quant_max": spec.quant_max}
    reference: torch_ao.MinMaxObserver | torch_ao.PerChannelMinMaxObserver
    if spec.axis is None:
        scheme = torch.per_tensor_symmetric if spec.symmetric else torch.per_tensor_affine
        reference = torch_ao.MinMaxObserver(spec.dtype, scheme, eps=spec.eps, **custom)
    else:
        scheme = torch.per_channel_symmetric if spec.symmetric else torch.per_channel_affine
        reference = torch_ao.PerChannelMinMaxObserver(
            0, dtype=spec.dtype, qscheme=scheme, eps=spec.eps, **custom
        )
    reference.min_val, reference.max_val = low, high
    scale, zero_point = reference.calculate_qparams()
    return scale, zero_point


@pytest.mark.parametrize("eps", [2**-12, 2**-23])
@pytest.mark.parametrize(("dtype", "quant_min", "quant_max", "symmetric"), RANGES)
def test_per_channel_equals_torch_ao(
    dtype: torch.dtype, quant_min: int, quant_max: int, symmetric: bool, eps: float
) -> None:
    spec = QuantSpec(dtype, quant_min, quant_max, symmetric, 0, "min_max", eps)
    low, high = random_bounds(500)
    scale, zero_point = torch_ao_qparams(low, high, spec)
    ours = qparams_from_range(low, high, spec)
    assert ours.scale.dtype == torch.float32
    assert ours.zero_point.dtype == torch.int64
    assert torch.equal(ours.scale, scale)
    assert torch.equal(ours.zero_point, zero_point.long())
    assert ours.spec is spec


@pytest.mark.parametrize(("dtype", "quant_min", "quant_max", "symmetric"), RANGES)
def test_per_tensor_equals_torch_ao(
    dtype: torch.dtype, quant_min: int, quant_max: int, symmetric: bool
) -> None:
    spec = QuantSpec(dtype, quant_min, quant_max, symmetric, eps=2**-12)
    for low, high in zip(*random_bounds(50), strict=True):
        scale, zero_point = torch_ao_qparams(low, high, spec)
        ours = qparams_from_range(low, high, spec)
        assert ours.scale.shape == ours.zero_point.shape == ()
        assert ours.scale == scale
        assert ours.zero_point == zero_point


@pytest.mark.parametrize(("dtype", "quant_min", "quant_max", "symmetric"), RANGES)
def test_without_a_floor_it_equals_torch_ao_down_to_the_smallest_scale(
    dtype: torch.dtype, quant_min: int, quant_max: int, symmetric: bool
) -> None:
    spec = QuantSpec(dtype, quant_min, quant_max, symmetric)
    for low, high in zip(*random_bounds(50), strict=True):
        if low == high == 0:
            continue
        ours = qparams_from_range(low * 2**-100, high * 2**-100, spec)
        scale, zero_point = torch_ao_qparams(low * 2**-100, high * 2**-100, spec)
        assert ours.scale == scale
        assert ours.scale >= SCALE_FLOOR
        assert ours.zero_point == zero_point


def test_a_tensor_of_zeros_alone_gets_a_range_that_holds_what_may_come() -> None:
    nothing = torch.tensor(0.0)
    for spec in (QuantSpec(torch.uint8, 0, 255), QuantSpec(torch.int8, -128, 127, symmetric=True)):
        scale, zero_point = qparams_from_range(nothing, nothing, spec).scale, 0
        zero_point = int(qparams_from_range(nothing, nothing, spec).zero_point)
        assert (spec.quant_min - zero_point) * scale <= -7.9
        assert (spec.quant_max - zero_point) * scale >= 7.9
    floor = QuantSpec(torch.uint8, 0, 255, eps=2**-12)
    assert qparams_from_range(nothing, nothing, floor).scale == 2**-12


def test_a_channel_of_zeros_gets_the_scale_of_the_largest() -> None:
    spec = QuantSpec(torch.int8, -128, 127, True, 0, "min_max")
    high = torch.tensor([1e-3, 0.0, 1e-5])
    scale = qparams_from_range(-high, high, spec).scale
    assert scale[1] == scale[0]
    assert scale[2] < scale[0] / 90
    nothing = torch.zeros(2)
    assert torch.equal(
        qparams_from_range(nothing, nothing, spec).scale, torch.full((2,), 1 / 127.5)
    )


@pytest.mark.parametrize("largest", [1e38, 3e38, torch.finfo(torch.float32).max])
@pytest.mark.parametrize(("dtype", "quant_min", "quant_max", "symmetric"), RANGES)
def test_no_integer_stands_for_infinity(
    dtype: torch.dtype, quant_min: int, quant_max: int, symmetric: bool, largest: float
) -> None:
    spec = QuantSpec(dtype, quant_min, quant_max, symmetric)
    for low, high in ((-largest, largest), (0.0, largest), (-largest, 0.0)):
        found = qparams_from_range(torch.tensor(low), torch.tensor(high), spec)
        ends = torch.tensor([quant_min, quant_max]) - found.zero_point
        values = ends * found.scale
        assert torch.isfinite(values).all()
        if not symmetric:  # whose range is as wide on the side that holds nothing
            assert values[0] <= low * 0.98
        assert values[1] >= high * 0.98


def test_zero_is_always_a_level() -> None:
    spec = QuantSpec(torch.uint8, 0, 255)
    above = qparams_from_range(torch.tensor(3.0), torch.tensor(5.1), spec)
    assert above.zero_point == 0
    assert float(above.scale) == pytest.approx(5.1 / 255)
    below = qparams_from_range(torch.tensor(-5.1), torch.tensor(-3.0), spec)
    assert below.zero_point == 255


def weight_spec(pair_bound: PairBound, quant_min: int = -128) -> QuantSpec:
    return QuantSpec(
        torch.int8, quant_min, 127, True, axis=0, observer="min_max", pair_bound=pair_bound
    )


def quantized_pairs(weight: Tensor, spec: QuantSpec, by_reciprocal: bool) -> Tensor:
    """Return the int32 weight after pair-bounded quantization, shape of ``weight``."""
    flat = weight.flatten(1)
    plain = qparams_from_range(flat.amin(1), flat.amax(1), spec).scale
    scale = pair_bounded_scale(weight, plain, spec).view(-1, *[1] * (weight.dim() - 1))
    steps = weight * (1.0 / scale) if by_reciprocal else weight / scale
    return steps.round().clamp(spec.quant_min, spec.quant_max).int()


@pytest.mark.parametrize("by_reciprocal", [False, True])
@pytest.mark.parametrize("pair_bound", ["blocks", "adjacent"])
@pytest.mark.parametrize("unit", [0.5, 1.0, 0.0123, 1e-6 * 257])
def test_no_pair_of_any_two_weights_exceeds_128(
    unit: float, pair_bound: PairBound, by_reciprocal: bool
) -> None:
    """Every pair of multiples of ``unit`` in [-128, 128]: 66,049 output channels of two inputs."""
    grid = torch.arange(-128, 129) * unit
    weight = torch.cartesian_prod(grid, grid)
    q = quantized_pairs(weight, weight_spec(pair_bound), by_reciprocal)
    same_sign = q.prod(1) > 0
    assert q[same_sign].sum(1).abs().max() == 128  # reached, so the scale is not larger than needed
    # A pair of opposite signs or with a zero keeps its plain scale.
    alone = weight.prod(1) <= 0
    assert torch.equal(q[alone], quantized_pairs(weight[alone], weight_spec("none"), by_reciprocal))


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("kernel", [(), (3,), (3, 3), (1, 1), (2, 3, 3)])
def test_blocks_pair_channels_at_the_same_kernel_position(
    channels: int, kernel: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, channels, *kernel)
    q = quantized_pairs(weight, weight_spec("blocks"), by_reciprocal=False)
    for left in range(0, channels - 1, 2):
        a, b = q[:, left], q[:, left + 1]
        assert (a + b).abs()[a * b > 0].max() <= 128
    assert not saturates(q.to(torch.int8), 255, "blocks").any()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 63])
def test_adjacent_pairs_every_two_neighbours(k: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(200, k) ** 3
    q = quantized_pairs(weight, weight_spec("adjacent"), by_reciprocal=False)
    a, b = q[:, :-1], q[:, 1:]
    assert not ((a * b > 0) & ((a + b).abs() > 128)).any()
    assert not saturates(q.to(torch.int8), 255, "adjacent").any()


def test_depthwise_and_unbounded_weights_keep_their_scale() -> None:
    weight, scale = torch.randn(6, 1, 3, 3), torch.rand(6)
    assert torch.equal(pair_bounded_scale(weight, scale, weight_spec("blocks")), scale)
    dense = torch.ones(6, 8)
    assert torch.equal(pair_bounded_scale(dense, scale, weight_spec("none")), scale)


def test_pair_bound_grows_the_scale_by_at_most_two() -> None:
    weight = torch.ones(1, 2)
    plain = qparams_from_range(torch.zeros(1), torch.ones(1), weight_spec("blocks")).scale
    bounded = pair_bounded_scale(weight, plain, weight_spec("blocks"))
    assert float(bounded) == pytest.approx(2 / 127)


def test_pair_bound_refuses_other_axes() -> None:
    spec = QuantSpec(torch.int8, -128, 127, True, 2, "min_max", pair_bound="blocks")
    with refused(
        "pair-bound",
        SpecError,
        site="s8[-128,127] symmetric per-channel(2) pair-bounded(blocks)",
        says=r"axis 1, not.*\(2, 3, 4\)",
    ):
        pair_bounded_scale(torch.ones(2, 3, 4), torch.ones(4), spec)


def observed_scale(x: Tensor, spec: QuantSpec) -> Tensor:
    observer = make_observer(spec)
    assert isinstance(observer, Observer)
    observer(x)
    return observer.calculate_qparams().scale


@pytest.mark.parametrize("observer", ["min_max", "weight_mse"])
def test_inputs_of_transposed_convolutions_are_paired_along_axis_0(observer: ObserverName) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[:2] = 1.0  # neighbours of one sign: each scale is theirs
    first = QuantSpec(torch.int8, -128, 127, True, 0, observer, pair_bound="blocks")
    one, other = (
        observed_scale(moved, spec)
        for moved, spec in ((weight.transpose(0, 1), first), (weight, replace(first, axis=1)))
    )
    assert torch.equal(one, other)
    assert (other >= 2 / 127).all()
    integers = (weight.transpose(0, 1) / other.view(-1, 1, 1, 1)).round().to(torch.int8)
    assert not saturates(integers, 255, "blocks").any()


def test_saturates_reads_sign_neighbourhood_and_activation() -> None:
    weight = torch.tensor(
        [[64, 65, 0, 0], [64, 64, 64, 64], [127, -127, 127, -128], [-64, -65, 0, 0], [0, 64, 65, 0]]
    ).to(torch.int8)
    assert saturates(weight, 255, "blocks").tolist() == [True, False, False, True, False]
    assert saturates(weight, 255, "adjacent").tolist() == [True, False, False, True, True]
    assert not saturates(weight, 127, "adjacent").any()
    assert not saturates(torch.full((3, 1, 5, 5), 127, dtype=torch.int8), 255, "blocks").any()


Outcomes = dict[str, list[dict[str, Any]]]


def outcomes(*arguments: str, isa: str | None = "AVX2") -> Outcomes:
    """Kernel against integer arithmetic in a process whose oneDNN may use AVX2 only."""
    program = Path(__file__).with_name("saturating_kernels.py")
    result = subprocess.run(
        [sys.executable, str(program), *arguments],
        env={**os.environ, **({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    found: Outcomes = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def avx2_outcomes() -> Outcomes:
    return outcomes()


@pytest.mark.sweep
@pytest.mark.parametrize("isa", ["AVX2", None], ids=["limited to AVX2", "this host"])
def test_the_pairing_rules_hold_on_random_shapes(isa: str | None) -> None:
    """No channel that the rule calls safe is wrong, and none is wrong with bounded weights."""
    found = outcomes("300", isa=isa)
    assert [name for name, (_, bound) in found.items() if bound["wrong"] > 1e-6] == []
    assert [name for name, (plain, _) in found.items() if plain["unforeseen"]] == []


def test_avx2_kernels_are_exact_with_pair_bounded_weights(
    avx2_outcomes: Outcomes,
) -> None:
    inexact = {name: bound for name, (_, bound) in avx2_outcomes.items() if bound["wrong"] > 1e-6}
    assert inexact == {}
    assert not any(bound["unsafe"] for _, bound in avx2_outcomes.values())


@pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx2", False), reason="saturation is one of x86 kernels"
)
def test_avx2_kernels_are_wrong_without_the_bound(
    avx2_outcomes: Outcomes,
) -> None:
    wrong = [name for name, (plain, _) in avx2_outcomes.items() if plain["wrong"] > 0.1]
    assert len(wrong) > 50
    assert {name.split()[0] for name in wrong} == {"linear", "conv1d", "conv2d", "conv3d"}


def test_saturates_foresees_every_wrong_channel(
    avx2_outcomes: Outcomes,
) -> None:
    assert not any(o["unforeseen"] for outcomes in avx2_outcomes.values() for o in outcomes)

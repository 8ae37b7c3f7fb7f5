"""Fake-quantize modules: the values of q/dq to the bit, and the gradients that papers state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError, SpecError
from quantfx.passes.observers.dynamic_fake_quantize import DynamicFakeQuantize
from quantfx.passes.observers.fake_quantize import (
    FakeQuantize,
    MovingFakeQuantize,
    WeightFakeQuantize,
    fake_quantized,
)
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize
from quantfx.passes.observers.make_fake_quantize import make_fake_quantize
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.quant.qdq import (
    CHOOSE_QPARAMS,
    DEQUANTIZE_PER_CHANNEL,
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_TENSOR,
)
from quantfx.passes.quant.qparams import QParams, saturates
from quantfx.passes.quant.spec import CastSpec, QuantSpec
from tests.refusals import refused

GENERATOR = torch.Generator().manual_seed(0)
U8 = QuantSpec(torch.uint8, 0, 255)
S8 = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="weight_mse")
X = torch.randn(64, 33, generator=GENERATOR) * 3 + 1


def by_operators(x: Tensor, qparams: QParams) -> Tensor:
    spec = qparams.spec
    limits = spec.quant_min, spec.quant_max, spec.dtype
    if spec.axis is None:
        given = float(qparams.scale), int(qparams.zero_point)
        q = QUANTIZE_PER_TENSOR(x, *given, *limits)
        result: Tensor = DEQUANTIZE_PER_TENSOR(q, *given, *limits)
        return result
    channels = qparams.scale, qparams.zero_point, spec.axis
    q = QUANTIZE_PER_CHANNEL(x, *channels, *limits)
    result = DEQUANTIZE_PER_CHANNEL(q, *channels, *limits)
    return result  # noqa: RET504  # an operator's result has no type


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


MODULES: dict[str, Callable[[], FakeQuantize]] = {
    "moving": lambda: MovingFakeQuantize(U8),
    "moving, narrow": lambda: MovingFakeQuantize(replace(U8, quant_max=127)),
    "weight": lambda: WeightFakeQuantize(S8),
    "weight, bounded": lambda: WeightFakeQuantize(replace(S8, pair_bound="adjacent")),
    "weight, 4 bits": lambda: WeightFakeQuantize(replace(S8, quant_min=-8, quant_max=7)),
    "weight, per tensor": lambda: WeightFakeQuantize(replace(S8, axis=None, observer="min_max")),
    "learned": lambda: LearnedFakeQuantize(replace(U8, observer="mse")),
    "learned weight": lambda: LearnedFakeQuantize(S8, (64,)),
    "learned weight, bounded": lambda: LearnedFakeQuantize(replace(S8, pair_bound="blocks"), (64,)),
}


@pytest.mark.parametrize("name", MODULES)
def test_values_are_those_of_quantize_and_dequantize(name: str) -> None:
    module = MODULES[name]()
    seen = module(X)
    constant = X if "weight" in name else None
    assert torch.equal(seen, by_operators(X, module.qparams_of(constant)))
    assert torch.equal(module.eval()(X), seen)
    assert not torch.equal(seen, X)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_pass_inside_the_range_only(name: str) -> None:
    module = MODULES[name]()
    module(X)
    x = (X * 1.5).requires_grad_()
    module.eval()
    module(x).sum().backward()
    qparams = module.qparams_of(x.detach() if "weight" in name else None)
    scale, zero_point = qparams.scale, qparams.zero_point
    if qparams.spec.axis is not None:
        scale, zero_point = scale[:, None], zero_point[:, None]
    steps = torch.round(x.detach() * (1 / scale)) + zero_point
    inside = (steps >= qparams.spec.quant_min) & (steps <= qparams.spec.quant_max)
    assert torch.allclose(gradient(x), inside.float())


def test_the_range_follows_the_batches_in_training_only() -> None:
    module, reference = MovingFakeQuantize(U8), MovingAverageObserver(U8)
    for _ in range(5):
        batch = torch.randn(8, 8, generator=GENERATOR)
        module(batch)
        reference(batch)
    assert torch.equal(module.range.min_val, reference.min_val)
    settled = module.qparams_of(None)
    module.eval()(X * 100)
    module.train().freeze()
    module(X * 100)
    assert torch.equal(module.qparams_of(None).scale, settled.scale)
    module.frozen = False
    module(X * 100)
    assert module.qparams_of(None).scale > settled.scale


@pytest.mark.parametrize("module", [MovingFakeQuantize(U8, "a site"), LearnedFakeQuantize(U8)])
def test_nothing_seen_is_an_error_that_names_the_site(module: FakeQuantize) -> None:
    with refused("never-run", CalibrationError):
        module.eval()(X)
    module.quantizing = False
    assert module(X) is X


def test_a_batch_of_nan_is_refused() -> None:
    with refused("not-finite", CalibrationError, site="a site"):
        MovingFakeQuantize(U8, "a site")(torch.full((4,), torch.nan))


def test_an_empty_tensor_passes() -> None:
    for make in MODULES.values():
        assert make()(X[:0]).shape == (0, 33)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_rounded_on_the_grid_of_single_precision(dtype: torch.dtype) -> None:
    module = MovingFakeQuantize(U8)
    x = X.to(dtype).requires_grad_()
    y = module(x)
    assert y.dtype == dtype
    assert torch.equal(y, by_operators(x.detach().float(), module.qparams_of(None)).to(dtype))
    y.sum().backward()
    assert gradient(x).dtype == dtype


def test_no_sum_of_a_bounded_weight_saturates() -> None:
    for module in (
        WeightFakeQuantize(replace(S8, pair_bound="adjacent")),
        LearnedFakeQuantize(replace(S8, pair_bound="adjacent"), (64,)),
    ):
        module(X)
        if isinstance(module, LearnedFakeQuantize):  # training may shrink a scale below the bound
            module.log_ratio.data -= 2
        weight = X.sign() * (X.abs() + 1)
        qparams = module.qparams_of(weight)
        integers = torch.round(module(weight) / qparams.scale[:, None]).to(torch.int8)
        assert not saturates(integers, 255, "adjacent").any()


def test_the_gradient_of_a_learned_scale() -> None:
    """Esser et al. 2020, equation 3, with the gradient scale of section 2.2."""
    spec = QuantSpec(torch.int8, -8, 7, symmetric=True, observer="min_max")
    module = LearnedFakeQuantize(spec)
    module.start.fill_(0.5)
    x = torch.tensor([0.6, -0.2, 1.1, 40.0, -40.0])
    module(x).sum().backward()
    inside = [round(v / 0.5) - v / 0.5 for v in (0.6, -0.2, 1.1)]
    expected = (sum(inside) + 7 - 8) / math.sqrt(5 * 7)
    assert gradient(module.log_ratio).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_learned_scales_is_that_of_finite_differences_between_steps() -> None:
    """Where no value crosses to another integer, the derivative of the clipped ones is exact."""
    module = LearnedFakeQuantize(replace(S8, quant_min=-4, quant_max=3, observer="min_max"), (2,))
    module.start.copy_(torch.tensor([0.1, 0.3]))
    x = torch.tensor([[5.0, 6.0, -7.0], [9.0, -9.0, -8.0]])  # all clipped
    module(x).sum().backward()
    factor = 1 / math.sqrt(3 * 3)
    assert torch.allclose(
        gradient(module.log_ratio), torch.tensor([3 + 3 - 4.0, 3 - 4 - 4.0]) * factor
    )


def test_learned_scales_of_groups_are_those_of_the_rows_that_groups_make() -> None:
    spec = replace(S8, observer="min_max")
    groups = LearnedFakeQuantize(replace(spec, group=11), (64, 3))
    rows = LearnedFakeQuantize(spec, (192,))
    given = [X.clone().requires_grad_(), X.reshape(192, 11).requires_grad_()]
    found = [module(x) for module, x in zip((groups, rows), given, strict=True)]
    assert torch.equal(*(each.flatten() for each in found))
    for each in found:
        each.square().sum().backward()
    assert torch.equal(*(gradient(x).flatten() for x in given))
    assert torch.equal(gradient(groups.log_ratio), gradient(rows.log_ratio).reshape(64, 3))


def test_a_scale_below_its_bound_can_leave_there_again() -> None:
    for spec in (replace(S8, pair_bound="adjacent"), replace(S8, eps=10.0)):
        module = LearnedFakeQuantize(spec, (64,))
        module(X)
        module.log_ratio.data -= 2
        (module(X) * X).sum().backward()
        assert bool((gradient(module.log_ratio) != 0).all())


def test_a_learned_scale_starts_where_calibration_put_it() -> None:
    first = LearnedFakeQuantize(replace(U8, observer="min_max"))
    first(X)
    later = LearnedFakeQuantize(replace(U8, observer="min_max"))
    later.calibrating = True
    later.eval()
    for rows in torch.split(X, 16):
        assert later(rows) is rows
    later.end_calibration()
    later.calibrating = False
    assert torch.equal(later.start, first.start)
    assert torch.equal(later.zero_point, first.zero_point)
    later.train()(X * 9)
    assert torch.equal(later.start, first.start)


def test_a_dynamic_range_is_that_of_the_kernel() -> None:
    spec = replace(U8, dynamic=True)
    module = DynamicFakeQuantize(spec)
    scale, zero_point = CHOOSE_QPARAMS(X, 0, 255, torch.finfo(torch.float32).eps, torch.uint8)
    qparams = QParams(scale.float().reshape(()), zero_point.reshape(()), spec)
    assert torch.equal(module(X), by_operators(X, qparams))
    x = X.clone().requires_grad_()
    module(x).sum().backward()
    assert torch.equal(gradient(x), torch.ones_like(x))
    module.quantizing = False
    assert module(X) is X


def test_flags_and_ranges_travel_in_the_state() -> None:
    for make in MODULES.values():
        module, fresh = make(), make()
        module(X)
        module.freeze()
        module.quantizing = False
        fresh.load_state_dict(module.state_dict())
        assert (fresh.frozen, fresh.quantizing) == (True, False)
        fresh.quantizing = module.quantizing = True
        assert torch.equal(fresh(X), module(X))


def test_specs_choose_the_module() -> None:
    def made(spec: QuantSpec | CastSpec, weight: Tensor | None, *, learn: bool = False) -> str:
        module = make_fake_quantize(spec, "site", weight=weight, learn_scale=learn)
        return type(module).__name__

    assert made(U8, None) == "MovingFakeQuantize"
    assert made(S8, X) == "WeightFakeQuantize"
    assert made(U8, None, learn=True) == made(S8, X, learn=True) == "LearnedFakeQuantize"
    assert made(replace(U8, dynamic=True), None, learn=True) == "DynamicFakeQuantize"
    assert made(CastSpec(torch.float16), X) == "CastFakeQuantize"
    with refused("not-trainable", SpecError, site="site"):
        made(replace(U8, observer=lambda spec, label: MovingAverageObserver(spec, label)), None)


def test_double_precision_is_rounded_too() -> None:
    module = WeightFakeQuantize(S8)
    x = X.double()
    y = module(x)
    assert y.dtype == torch.float64
    qparams = module.qparams_of(x)
    steps = y / qparams.scale[:, None]
    assert torch.allclose(steps, steps.round(), atol=1e-6)
    assert torch.equal(fake_quantized(x, qparams), y)

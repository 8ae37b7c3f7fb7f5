from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.ao.quantization import observer as torch_ao

from quantfx.passes.errors import CalibrationError
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.quant.qparams import pair_bounded_scale, qparams_from_range
from quantfx.passes.quant.spec import QuantSpec
from tests.refusals import refused

PER_TENSOR = QuantSpec(torch.uint8, 0, 255, observer="min_max")
BOUNDED = QuantSpec(torch.int8, -128, 127, True, 0, "min_max", pair_bound="blocks")


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_per_tensor_equals_torch_ao(symmetric: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    reference = torch_ao.MinMaxObserver(torch.int8, scheme, eps=2**-12)
    observer = MinMaxObserver(QuantSpec(torch.int8, -128, 127, symmetric, observer="min_max"))
    for size in (1, 10, 1000):
        x = (torch.randn(size, 3) * size).to(dtype)
        assert observer(x) is x
        reference(x)
        scale, zero_point = reference.calculate_qparams()
        qparams = observer.calculate_qparams()
        assert qparams.scale == scale
        assert qparams.zero_point == zero_point


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_per_channel_equals_torch_ao(axis: int, symmetric: bool) -> None:
    torch.manual_seed(0)
    scheme = torch.per_channel_symmetric if symmetric else torch.per_channel_affine
    reference = torch_ao.PerChannelMinMaxObserver(axis, dtype=torch.int8, qscheme=scheme)
    spec = QuantSpec(torch.int8, -128, 127, symmetric, axis, "min_max", eps=2**-23)
    observer = MinMaxObserver(spec)
    for scale in (1.0, 3.0):
        x = torch.randn(4, 5, 6) * scale
        observer(x)
        reference(x)
    scales, zero_points = reference.calculate_qparams()
    qparams = observer.calculate_qparams()
    assert torch.equal(qparams.scale, scales)
    assert torch.equal(qparams.zero_point, zero_points.long())


def test_pair_bound_is_that_of_the_weight() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 5, 3, 3)
    observer = MinMaxObserver(BOUNDED)
    observer(weight)
    plain = qparams_from_range(weight.flatten(1).amin(1), weight.flatten(1).amax(1), BOUNDED)
    bounded = pair_bounded_scale(weight, plain.scale, BOUNDED)
    assert torch.equal(observer.calculate_qparams().scale, bounded)
    assert (bounded > plain.scale).any()


def test_record_is_a_few_numbers_per_channel_and_a_running_maximum() -> None:
    torch.manual_seed(0)
    small, large = torch.randn(4, 6), torch.randn(4, 6) * 9
    both, one = MinMaxObserver(BOUNDED), MinMaxObserver(BOUNDED)
    for weight in (large, small):
        both(weight)
    one(large)
    assert all(buffer.shape == (4,) for buffer in both.buffers())
    assert torch.equal(both.pair_sum, one.pair_sum)


@pytest.mark.parametrize("spec", [PER_TENSOR, BOUNDED])
def test_state_dict_deepcopy_and_pickle_keep_the_record(spec: QuantSpec) -> None:
    torch.manual_seed(0)
    observer = MinMaxObserver(spec, "w")
    observer(torch.randn(4, 6))
    loaded = MinMaxObserver(spec, "w")
    loaded.load_state_dict(observer.state_dict())
    for twin in (loaded, copy.deepcopy(observer), pickle.loads(pickle.dumps(observer))):
        assert twin.spec == spec
        assert torch.equal(twin.calculate_qparams().scale, observer.calculate_qparams().scale)


@pytest.mark.parametrize("spec", [PER_TENSOR, BOUNDED])
def test_needs_data(spec: QuantSpec) -> None:
    observer = MinMaxObserver(spec, "conv1.weight")
    observer(torch.empty(0, 2))
    assert not observer.observed
    with refused("never-run", CalibrationError, site="conv1.weight"):
        observer.calculate_qparams()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("spec", [PER_TENSOR, BOUNDED])
def test_refuses_non_finite(spec: QuantSpec, bad: float) -> None:
    x = torch.ones(2, 4)
    x[1, 2] = bad
    with refused("not-finite", CalibrationError, site="fc"):
        MinMaxObserver(spec, "fc")(x)

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.ao.quantization import observer as torch_ao

from quantfx.passes.errors import CalibrationError
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.quant.spec import QuantSpec
from tests.refusals import refused

SPEC = QuantSpec(torch.uint8, 0, 255, observer="moving_average")


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_torch_ao(symmetric: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    reference = torch_ao.MovingAverageMinMaxObserver(dtype=torch.int8, qscheme=scheme, eps=2**-12)
    spec = QuantSpec(torch.int8, -128, 127, symmetric, observer="moving_average")
    observer = MovingAverageObserver(spec)
    for _ in range(50):
        x = (torch.randn(7, 9) * 10 * torch.rand(1)).to(dtype)
        assert observer(x) is x
        reference(x)
        scale, zero_point = reference.calculate_qparams()
        qparams = observer.calculate_qparams()
        assert qparams.scale == scale
        assert qparams.zero_point == zero_point
        assert observer.min_val == reference.min_val
        assert observer.max_val == reference.max_val


def test_state_dict_deepcopy_and_pickle_keep_the_record() -> None:
    observer = MovingAverageObserver(SPEC, "x")
    observer(torch.arange(9.0) - 3)
    loaded = MovingAverageObserver(SPEC, "x")
    loaded.load_state_dict(observer.state_dict())
    for twin in (loaded, copy.deepcopy(observer), pickle.loads(pickle.dumps(observer))):
        assert twin.calculate_qparams().scale == observer.calculate_qparams().scale


def test_needs_data() -> None:
    observer = MovingAverageObserver(SPEC, "x")
    observer(torch.empty(0))
    with refused("never-run", CalibrationError, site="x"):
        observer.calculate_qparams()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_refuses_non_finite_and_keeps_its_record(bad: float) -> None:
    observer = MovingAverageObserver(SPEC, "relu_3")
    observer(torch.ones(3))
    with refused("not-finite", CalibrationError, site="relu_3"):
        observer(torch.tensor([1.0, bad]))
    assert observer.max_val == 1.0

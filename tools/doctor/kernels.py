"""``quantfx doctor``'s test of two int8 kernels, on values that saturate where anything does.

Weights are quantized by the backend's specs, which reveals a target that promises more than the CPU
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quantfx.backends.backend import Backend
from quantfx.backends.direct.runtime.library import Runtime, runtime
from quantfx.backends.direct.runtime.plan import Plan, Store
from quantfx.backends.direct.runtime.steps import Pointwise, Program
from quantfx.backends.direct.runtime.values import Buffer, Value, in_order
from quantfx.backends.onednn.ops import QCONV, QCONV_PREPACK, QLINEAR, QLINEAR_PREPACK
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.spec import QuantSpec
from quantfx.tools.doctor.check import Check

# 258 is 2 beyond a multiple of 4: such a GEMM starts its second block of pairs at an odd place.
_ROWS, _LINEAR_WEIGHT = (5, 258), (16, 258)
_IMAGE, _CONV_WEIGHT = (2, 16, 7, 7), (8, 16, 3, 3)
# Scale, zero point, dtype, and no activation: float results are the integer sums themselves.
_SUMS: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
_FIX = (
    "the CPU does not add as its target says: quantize with target='avx2', and report it with the "
    "output of doctor"
)
_FIX_FAILED = "the kernels need an x86 CPU and a torch built with oneDNN: pip install torch==2.13.0"

Kernel = Callable[[Tensor, Tensor], Tensor]


NAME = "direct runtime"
_WITHOUT = "kernels='auto' takes torch's own operators until then"


def kernel_checks(backend: Backend) -> Iterator[Check]:
    """Yield whether an int8 linear and an int8 convolution are exact on this machine.

    Args:
        backend: The backend whose specs quantize the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = _worst_weight(_LINEAR_WEIGHT, backend, "linear_weight")
        x = _worst_activation(_ROWS, backend)
        yield _check("int8 linear", _linear, functional.linear, x, weight)
        weight = _worst_weight(_CONV_WEIGHT, backend, "conv_weight")
        x = _worst_activation(_IMAGE, backend)
        yield _check("int8 convolution", _convolution, functional.conv2d, x, weight)


def _check(name: str, kernel: Kernel, exact: Kernel, x: Tensor, weight: Tensor) -> Check:
    expected = exact(x.double(), weight.double())
    try:
        error = (kernel(x, weight).double() - expected).abs().max()
    except RuntimeError as failure:
        return Check(name, "problem", f"failed: {failure}", _FIX_FAILED)
    if error == 0:  # sums are far below 2**24, so float32 is exact
        return Check(name, "ok", "exact where sums are largest")
    found = f"wrong by {float(error / expected.abs().max()):.1%} of the largest sum"
    return Check(name, "problem", found, _FIX)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    scales, zeros = _one_scale_each(weight)
    packed = QLINEAR_PREPACK(weight, list(x.shape))
    result: Tensor = QLINEAR(x, 1.0, 0, packed, scales, zeros, None, *_SUMS)
    return result


def _convolution(x: Tensor, weight: Tensor) -> Tensor:
    scales, zeros = _one_scale_each(weight)
    geometry = ([1, 1], [0, 0], [1, 1], 1)  # stride, padding, dilation, groups
    packed = QCONV_PREPACK(weight, scales, 1.0, 0, *geometry, list(x.shape))
    result: Tensor = QCONV(x, 1.0, 0, packed, scales, zeros, None, *geometry, *_SUMS)
    return result


def _one_scale_each(weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)


def _worst_weight(shape: tuple[int, ...], backend: Backend, spec_name: str) -> Tensor:
    """Return large weights of one sign within an output channel, quantized under a spec."""
    spec = _spec(backend, spec_name)
    signs = torch.ones(shape[0])
    signs[::2] = -1
    weight = (0.5 + torch.rand(shape) / 2) * _per_channel(signs, shape)
    observer = make_observer(spec)
    assert isinstance(observer, Observer), "weights have stored scales"
    observer(weight)
    steps = weight / _per_channel(observer.calculate_qparams().scale, shape)
    return steps.round().clamp(spec.quant_min, spec.quant_max).to(torch.int8)


def _worst_activation(shape: tuple[int, ...], backend: Backend) -> Tensor:
    """Return integers of which half are the largest."""
    largest = _spec(backend, "act").quant_max
    x = torch.randint(0, largest + 1, shape, dtype=torch.uint8)
    return x.masked_fill_(torch.rand(shape) < 0.5, largest)


def _per_channel(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return values.view(-1, *[1] * (len(shape) - 1))


def _spec(backend: Backend, name: str) -> QuantSpec:
    spec = backend.recipe.spec(name)
    assert isinstance(spec, QuantSpec), f"{name} is an integer"
    return spec


def direct_checks() -> Iterator[Check]:
    """Yield whether prepared plans run here; the first call on a machine compiles the runtime."""
    found = runtime()
    if found.reason:
        yield Check(NAME, "note", found.reason, _WITHOUT)
        return
    if _computes(found):
        yield Check(NAME, "ok", f"{found.onednn}, {found.compiler}")
    else:
        fix = "empty the cache of quantfx, and report it if that does not help"
        yield Check(NAME, "problem", f"{found.onednn} computes wrongly", fix)


def _computes(found: Runtime) -> bool:
    """Whether a plan of one step computes correctly."""
    assert found.library is not None, "there is a reason if there is none"
    layout = in_order(torch.Size([4]), torch.float32)
    source, result = (Value(Buffer(16, place), layout) for place in ("input", "output"))
    program = Program([Pointwise(source=source, other=source, combine="add", result=result)])
    program.outputs.append(layout)
    x = torch.arange(4.0)
    (doubled,) = Plan(Store(found.library), program, 1).run([x])
    return torch.equal(doubled, x + x)

"""The two-step form: torch.compile of a q/dq graph, with our backend and with plain Inductor."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

import quantfx
from quantfx.passes.errors import StaleWeightsError
from tests import unchecked
from tests.dynamo.models import Convolutions, Mlp, batches, compiled, phases
from tests.refusals import refused, warned


def lowered(quantized: nn.Module, **options: Any) -> tuple[Any, quantfx.CompileState]:
    state = quantfx.CompileState()
    given: Any = {"state": state, **options}
    return torch.compile(quantized, backend="quantfx_lower", options=given), state


def test_it_is_bit_equal_to_our_own_compiler() -> None:
    model = Convolutions().eval()
    x = torch.rand(4, 3, 8, 8)
    result = unchecked.quantize(model, (x,))
    fast, state = lowered(result.quantized)
    assert torch.equal(fast(x), result.compile()(x))
    assert phases(state) == [("int8", 0)]
    report = state.records[0].report
    assert report is not None
    kernels = {row.kind: dict(row.compiled_kernels) for row in report.rows}
    assert kernels["conv2d"] == {"qconv_pointwise": 1, "qconv2d_pointwise.binary": 1}
    assert kernels["linear"] == {"qlinear_pointwise": 1}


@pytest.mark.sweep  # in CI test_explicit.py has free sizes of this compiler
def test_free_sizes() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    dynamic = ({0: torch.export.Dim("rows", min=2, max=64)},)
    result = quantfx.quantize(model, (x,), calibration=[x], dynamic_shapes=dynamic)
    fast = torch.compile(result.quantized, backend="quantfx_lower", dynamic=True)
    for rows in (8, 3, 5):
        assert torch.allclose(fast(x[:rows]), result.quantized(x[:rows]), atol=1e-2)


def test_a_graph_of_another_quantizer() -> None:
    from quantfx.compat import (
        X86InductorQuantizer,
        convert_pt2e,
        get_default_x86_inductor_quantization_config,
        prepare_pt2e,
    )

    model, x = Mlp().eval(), batches(1)[0]
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(reduce_range=True))
    exported: Any = torch.export.export(model, (x,)).module()
    prepared = prepare_pt2e(exported, quantizer)
    prepared(x)
    converted = convert_pt2e(prepared)
    fast, state = lowered(converted)
    assert torch.allclose(fast(x), converted(x), atol=2e-2)
    assert state.report.compiled == 2


def test_weights_are_constants_and_watched() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    result = unchecked.quantize(model, (x,))
    fast, _ = lowered(result.quantized)
    fast(x)
    name, weight = next(iter(result.quantized.named_buffers()))
    with torch.no_grad():
        weight.add_(1)
    with refused("stale-weights", StaleWeightsError, site=name):
        fast(x)


def test_what_misses_its_kernel_is_named() -> None:
    class Affine(nn.Module):
        """A linear whose weight has a zero point, which the kernels ignore."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(-60, 60, (8, 32), dtype=torch.int8))
            self.register_buffer("scale", torch.full((8,), 0.01))
            self.register_buffer("zero", torch.full((8,), 3))

        def forward(self, x: Tensor) -> Tensor:
            decomposed = torch.ops.quantized_decomposed
            q = decomposed.quantize_per_tensor(x, 0.02, 128, 0, 255, torch.uint8)
            x = decomposed.dequantize_per_tensor(q, 0.02, 128, 0, 255, torch.uint8)
            weight = decomposed.dequantize_per_channel(
                self.weight, self.scale, self.zero, 0, -128, 127, torch.int8
            )
            return nn.functional.linear(x, weight)

    model, x = Affine().eval(), batches(1)[0]
    fast, _ = lowered(model)
    with refused("no-kernel", BackendCompilerFailed, site="linear"):
        fast(x)
    torch.compiler.reset()
    fast, state = lowered(model, strict=False)
    with warned("no-kernel", site="linear"):
        assert torch.allclose(fast(x), model(x), atol=1e-5)
    assert state.report.compiled == 0
    assert state.report.planned == 1


def test_a_float_model_is_refused() -> None:
    fast, _ = lowered(Mlp().eval())
    with refused("nothing-to-lower", BackendCompilerFailed, fix="quantfx_x86"):
        fast(batches(1)[0])
    torch.compiler.reset()
    model = Mlp().eval()
    fast, state = lowered(model, strict=False)
    with warned("nothing-to-lower"):
        assert torch.equal(fast(batches(1)[0]), model(batches(1)[0]))
    assert phases(state) == [("float", 0)]


def test_options_that_belong_to_quantizing_are_unknown() -> None:
    fast, _ = compiled(Mlp().eval(), "quantfx_lower")
    with refused("unknown-name", BackendCompilerFailed, site="calibration_batches"):
        fast(batches(1)[0])


def test_plain_inductor_is_warned_about_by_name() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    result = unchecked.quantize(model, (x,))
    fast = torch.compile(result.quantized)
    with warned("plain-inductor", fix="backend='quantfx_lower"):
        fast(x)


def test_nothing_else_is_warned_about() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    result = unchecked.quantize(model, (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", quantfx.QuantfxWarning)
        result.quantized(x)
        torch.export.export(result.quantized, (x,))
        torch.compile(result.quantized, backend="eager", fullgraph=True)(x)
        lowered(result.quantized)[0](x)
        result.compile()(x)


def test_a_graph_of_another_quantizer_is_told_how_to_be_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantfx.compat import (
        X86InductorQuantizer,
        convert_pt2e,
        get_default_x86_inductor_quantization_config,
        prepare_pt2e,
    )

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    model, x = Mlp().eval(), batches(1)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)  # of one sign: all sums are as large as can be
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    exported: Any = torch.export.export(model, (x,)).module()
    prepared = prepare_pt2e(exported, quantizer)
    prepared(x)
    fast, _ = lowered(convert_pt2e(prepared))
    with refused("saturates", BackendCompilerFailed, site="linear") as caught:
        fast(x)
    message = str(caught.value)
    assert "get_default_x86_inductor_quantization_config(reduce_range=True)" in message
    assert "target='host'" not in message
    assert "strict=False" in message

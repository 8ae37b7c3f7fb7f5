"""torch.ao's FX graph mode with given qparams, as an oracle where it is right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.ao.quantization.backend_config.utils
from torch import Tensor, nn
from torch.ao.quantization import (
    MinMaxObserver,
    QConfig,
    QConfigMapping,
    default_dynamic_qconfig,
    float16_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    float_qparams_weight_only_qconfig_4bit,
    per_channel_dynamic_qconfig,
)
from torch.ao.quantization.observer import PerChannelMinMaxObserver
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

ENGINE = "fbgemm"
STATIC: Any = QConfig(  # type: ignore[no-untyped-call]
    activation=MinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True),
    weight=PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0
    ),
)
# The same for weights that have one scale.
ONE_SCALE: Any = QConfig(  # type: ignore[no-untyped-call]
    activation=STATIC.activation,
    weight=MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
)
QCONFIGS: dict[str, Any] = {
    "static": STATIC,
    "dynamic": per_channel_dynamic_qconfig,
    "fp16": float16_dynamic_qconfig,
    "weight-only": float_qparams_weight_only_qconfig,
    "weight-only-4bit": float_qparams_weight_only_qconfig_4bit,
}


class _One(nn.Module):
    """What FX traces must name its inputs, and hold the module that is a pattern."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x)


class _Two(_One):
    def forward(self, x: Any, y: Any) -> Any:  # type: ignore[override]
        return self.model(x, y)


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Let torch's quantized operators run with an engine."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def fx_outputs(model: nn.Module, inputs: tuple[Any, ...], qconfig: Any) -> Tensor:
    """Return what FX graph mode's converted model returns, calibrated on the same inputs."""
    with warnings.catch_warnings(), engine(ENGINE), torch.no_grad():
        warnings.simplefilter("ignore")
        held = (_One if len(inputs) == 1 else _Two)(model)
        prepared: Any = prepare_fx(held.eval(), QConfigMapping().set_global(qconfig), inputs)
        prepared(*inputs)
        result = convert_fx(prepared)(*inputs)
    return result[0] if isinstance(result, tuple) else result


def qconfig_of(mode: str, pattern: str) -> Any:
    """Return the qconfig with our qparams."""
    if "onv_transpose" in pattern or "ConvTranspose" in pattern:
        return ONE_SCALE
    recurrent = pattern.endswith(("LSTM", "GRU", "Cell"))
    return default_dynamic_qconfig if recurrent and mode == "dynamic" else QCONFIGS[mode]

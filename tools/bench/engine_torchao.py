"""torchao's PT2E flow with the default configuration of its x86 quantizer, on Inductor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from quantfx.backends.inductor.torch_internals import inductor_settings
from quantfx.tools.bench.engine import Run
from quantfx.tools.bench.workload import Workload


def build(workload: Workload, threads: int) -> Run:
    """Quantize statically and compile with freezing.

    Importing torchao's quantizer changes Inductor's configuration for good; nothing else may be
    measured in this process.
    """
    del threads  # torch's own are set
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    # Without strict=True it leaves subclasses of nn.Conv2d float, and fails on a ReLU that is
    # called several times.
    exported = torch.export.export(workload.model, workload.example, strict=True).module()
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for batch in workload.calibration:
            prepared(*batch)
    # As its users do: a process-wide switch, and no code of quantfx in the calls.
    _PROCESS.enter_context(inductor_settings(freezing=True))
    compiled: Callable[..., Any] = torch.compile(convert_pt2e(prepared))

    def run(*inputs: torch.Tensor) -> Any:
        with torch.no_grad():
            return compiled(*inputs)

    return run


# Stays set until this process ends.
_PROCESS = ExitStack()

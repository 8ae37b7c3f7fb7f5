"""OpenVINO with NNCF's post-training int8; the rest is in OpenVINO's own default precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantfx.tools.bench.engine import Run
from quantfx.tools.bench.workload import Batch, Workload


def build(workload: Workload, threads: int) -> Run:
    """Convert the exported program, quantize it and compile it for the lowest latency."""
    import nncf
    import openvino

    exported = torch.export.export(workload.model, workload.example)
    # NNCF must be told that a network is a transformer, which layer norms show.
    transformer = any(isinstance(part, nn.LayerNorm) for part in workload.model.modules())
    quantized = nncf.quantize(
        openvino.convert_model(exported),
        nncf.Dataset(workload.calibration, _arrays),
        subset_size=len(workload.calibration),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    compiled = openvino.Core().compile_model(
        quantized,
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads},
    )
    request = compiled.create_infer_request()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = request.infer(_arrays(inputs), share_inputs=True)
        return tuple(torch.from_numpy(output) for output in outputs.to_tuple())

    return run


def _arrays(inputs: Batch) -> list[Any]:
    return [tensor.numpy() for tensor in inputs]

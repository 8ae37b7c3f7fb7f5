"""ONNX Runtime with static QDQ: u8 activations, s8 weights per channel, ranges by min and max."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from quantfx.tools.bench.engine import Run
from quantfx.tools.bench.workload import Batch, Workload


def build(workload: Workload, threads: int) -> Run:
    """Export to ONNX, quantize and open a session."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [f"input_{index}" for index in range(len(workload.example))]
    reader: Any = _Reader(names, workload.calibration)  # has what is asked for, not the class
    with TemporaryDirectory() as folder:
        exported, prepared, quantized = (
            Path(folder, f"{stage}.onnx") for stage in ("exported", "prepared", "quantized")
        )
        torch.onnx.export(
            workload.model, workload.example, exported, input_names=names, external_data=False
        )
        quant_pre_process(exported, prepared)
        quantize_static(
            prepared,
            quantized,
            reader,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return _session(quantized, names, threads)


def _session(path: Path, names: Sequence[str], threads: int) -> Run:
    import onnxruntime

    runtime: Any = onnxruntime  # its types lack half of its names
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, _feed(names, inputs))
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


def _feed(names: Sequence[str], inputs: Batch) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}


class _Reader:
    """Feeds calibration batches the way ONNX Runtime asks for them."""

    def __init__(self, names: Sequence[str], batches: Sequence[Batch]) -> None:
        self._feeds = iter([_feed(names, batch) for batch in batches])

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._feeds, None)

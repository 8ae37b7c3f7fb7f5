"""The other libraries: torchao, ONNX Runtime and OpenVINO, each quantized as its users do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.backends.inductor.torch_internals import inductor_settings
from quantfx.tools.bench.engine import Run
from quantfx.tools.bench.workload import Batch, Workload


def build_torchao(workload: Workload, threads: int) -> Run:
    """Quantize by the PT2E flow, with the x86 quantizer's default, and compile with freezing.

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


def build_onnxruntime(workload: Workload, threads: int) -> Run:
    """Export to ONNX, quantize and open a session.

    Static QDQ: u8 activations, s8 weights per channel, ranges by min and max.
    """
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


def build_openvino(workload: Workload, threads: int) -> Run:
    """Convert the exported program, quantize it and compile it for the lowest latency.

    NNCF's post-training int8; the rest is in OpenVINO's own default precision.
    """
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

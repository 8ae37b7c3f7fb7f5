"""Accuracy of int8 peers on EfficientNet-Lite0, all on the same crops in the same run.

Run by hand, in an environment of its own that also holds the peers::

    pip install -e ".[demo]" && pip install --no-deps -r requirements-demo.txt
    pip install torchao==0.18.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2
    python -m tests.peers.accuracy                            # this machine
    python -m tests.peers.accuracy quantfx 0 1 2              # one engine, three splits
    ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.peers.accuracy    # torch's kernels as without VNNI

ONNX Runtime has kernels of its own, which the variable does not limit. Signal to noise is over all
outputs of 108 test crops against the float network, mean over splits of the photographs. Differences below
1 dB or 4 points of agreement are within the noise of so few images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from quantfx.backends.inductor.compile import CompiledModule
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement
from quantfx.tools.models import photographs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0

BATCH = 4

Network = Callable[[Tensor], Tensor]


class Engine(NamedTuple):
    """A quantized network of a peer, ready to run."""

    name: str
    run: Network


def main(names: Sequence[str], seeds: Sequence[int]) -> None:
    """Quantize with every engine that is installed and print one row for each."""
    model = load_efficientnet_lite0()
    scores: dict[str, list[tuple[float, float]]] = {}
    # Importing torchao registers patterns in Inductor for good: quantfx comes first.
    for name in names:
        for seed in seeds:
            calibration, test = photographs.split_crops(seed)
            reference = outputs(model, test)
            try:
                for engine in ENGINES[name](model, calibration):
                    result = outputs(engine.run, test)
                    score = sqnr_db(reference, result), top1_agreement(reference, result)
                    scores.setdefault(engine.name, []).append(score)
                    print(f"split {seed}, {engine.name}: {score[0]:.2f} {score[1]:.3f}", flush=True)
            except ModuleNotFoundError as error:
                print(f"{name} needs {error.name}")
    title = f"mean of splits {', '.join(map(str, seeds))}; torch kernels: {_isa()}"
    table = Table("engine", "SQNR dB", "top-1", title=title)
    for name, found in scores.items():
        decibels, same = (sum(each) / len(found) for each in zip(*found, strict=True))
        table.add_row(name, f"{decibels:.2f}", f"{same:.3f}")
    Console().print(table)


def outputs(network: Network, images: Tensor) -> Tensor:
    """Run all images, in batches of the size every engine was made for."""
    with torch.no_grad():
        return torch.cat([network(batch) for batch in batches(images)])


def batches(images: Tensor) -> tuple[Tensor, ...]:
    """Split ``images``, whose number is a multiple of ``BATCH``."""
    return images.chunk(len(images) // BATCH)


def quantfx_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield this library's q/dq graph and what runs, with repairs, and what runs without."""
    import quantfx

    example = (calibration[:BATCH],)
    data = batches(calibration)
    result = quantfx.quantize(model, example, backend="x86", calibration=data)
    yield Engine("quantfx, q/dq graph in float", result.quantized)
    yield Engine("quantfx, kernels", result.module)
    for repair in (False, True):
        backend = quantfx.backends.get("x86", repair=repair)
        result = quantfx.quantize(model, example, backend=backend, calibration=data)
        yield Engine(f"quantfx, repair={repair}, kernels", result.module)


def torchao_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield torchao's PT2E flow with the default configuration of its x86 quantizer."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    # Without strict=True it quantizes nothing here: the convolutions are subclasses of nn.Conv2d.
    exported = torch.export.export(model, (calibration[:BATCH],), strict=True).module()
    prepared = prepare_pt2e(exported, quantizer)
    outputs(prepared, calibration)
    converted = convert_pt2e(prepared)
    yield Engine("torchao, q/dq graph in float", converted)
    yield Engine("torchao, compiled", CompiledModule(converted))


def onnxruntime_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield static QDQ, per channel with min-max: within noise the best of 16 settings tried."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder:
        exported, prepared = Path(folder, "exported.onnx"), Path(folder, "prepared.onnx")
        torch.onnx.export(
            model, (calibration[:BATCH],), exported, input_names=["x"], external_data=False
        )
        quant_pre_process(exported, prepared)
        for weight in (QuantType.QInt8, QuantType.QUInt8):
            quantized = Path(folder, f"{weight.name}.onnx")
            quantize_static(
                prepared,
                quantized,
                _Reader(calibration),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=weight,
            )
            name = "U8S8" if weight is QuantType.QInt8 else "U8U8"
            yield Engine(f"ONNX Runtime, static {name}", _onnxruntime_session(quantized))


def _onnxruntime_session(path: Path) -> Network:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": images.numpy()})[0])

    return run


class _Reader:
    """Feeds calibration batches the way ONNX Runtime asks for them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(batches(images))

    def get_next(self) -> dict[str, object] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"x": batch.numpy()}


def _isa() -> str:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"limited to {limit}" if limit else torch.backends.cpu.get_cpu_capability()


ENGINES: dict[str, Callable[[nn.Module, Tensor], Iterator[Engine]]] = {
    "quantfx": quantfx_engines,
    "torchao": torchao_engines,
    "onnxruntime": onnxruntime_engines,
}

if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        [each for each in given if not each.isdigit()] or list(ENGINES),
        [int(each) for each in given if each.isdigit()] or [0],
    )

"""``quantfx demo``: quantize a trained network in the open, and measure what it cost and won."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quantfx
from quantfx.backends.inductor.compile import CompiledModule
from quantfx.passes.report.text import print_report
from quantfx.result import Result
from quantfx.tools.measure.metrics import size_in_bytes, sqnr_db, top1_agreement
from quantfx.tools.measure.side_by_side import Ratio, ratio
from quantfx.tools.models import photographs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0


@dataclass(frozen=True)
class Subject:
    """What the demo quantizes.

    Attributes:
        title: One line about the network and its data.
        model: A classifier in eval mode that takes one image tensor.
        calibration: Images to calibrate with.
        test: Other images, to compare the float and the int8 network on.
    """

    title: str
    model: nn.Module
    calibration: Tensor
    test: Tensor


@dataclass(frozen=True)
class Measured:
    """What the table shows: outputs on the test images, sizes and speed."""

    float_outputs: Tensor
    quantized_outputs: Tensor
    compiled_outputs: Tensor
    float_bytes: int
    quantized_bytes: int
    speed: Ratio


def efficientnet_on_photographs() -> Subject:
    """Return EfficientNet-Lite0 with ImageNet weights and crops of bundled photographs."""
    return Subject(
        "EfficientNet-Lite0 with its ImageNet weights; calibrated on crops of "
        f"{', '.join(photographs.CALIBRATION_PHOTOGRAPHS)}; "
        f"compared on crops of {', '.join(photographs.TEST_PHOTOGRAPHS)}",
        load_efficientnet_lite0(),
        photographs.calibration_crops(),
        photographs.test_crops(),
    )


def run(
    output: Path,
    subject: Subject | None = None,
    console: Console | None = None,
    *,
    full: bool = False,
) -> Measured:
    """Quantize, compile, compare and draw; print every step and return the figures.

    Args:
        output: Folder for the drawings, made if missing.
        subject: What to quantize; by default EfficientNet-Lite0 on photographs.
        console: Where to print; by default standard output.
        full: Report every operator, reason and pass.

    Raises:
        QuantfxError: a package of the demo is missing.
    """
    console = console or Console()
    subject = subject or efficientnet_on_photographs()
    console.rule("[bold]1. The network and its data", align="left")
    _introduce(console, subject)
    console.rule("[bold]2. Quantize and compile", align="left")
    result, compiled = _quantize(console, subject)
    console.rule("[bold]3. What became of every operator", align="left")
    print_report(console, result.report, full=full)
    console.rule("[bold]4. What it cost and what it won", align="left")
    measured = _measure(console, subject, result, compiled)
    console.print(_table(measured))
    console.rule("[bold]5. The graph before and after", align="left")
    _draw(console, subject, result, output)
    return measured


def _introduce(console: Console, subject: Subject) -> None:
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    console.print(f"{subject.title}.", markup=False, highlight=False)
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {size_in_bytes(subject.model) / 1e6:.1f} MB; "
        f"{len(subject.calibration)} images to calibrate, {len(subject.test)} others to compare."
    )


def _quantize(console: Console, subject: Subject) -> tuple[Result, Callable[[Tensor], Any]]:
    result = quantfx.quantize(
        subject.model,
        (subject.calibration[:1],),
        backend="x86",
        calibration=_one_by_one(subject.calibration),
    )
    status = "Inductor compiles the quantized graph to int8 kernels ..."
    with console.status(status), warnings.catch_warnings():
        # torch 2.13's own lowering of int8 kernels warns about how it copies zero points.
        warnings.filterwarnings("ignore", message="To copy construct from a tensor")
        compiled = result.compile()
    return result, compiled


def _measure(
    console: Console, subject: Subject, result: Result, compiled: Callable[[Tensor], Any]
) -> Measured:
    with console.status("Running the test images through all three networks ..."):
        float_outputs = _run(subject.model, subject.test)
        quantized_outputs = _run(result.quantized, subject.test)
        compiled_outputs = _run(compiled, subject.test)
    with console.status("Compiling the float network and taking turns with the int8 one ..."):
        speed = _speed(subject, compiled)
    return Measured(
        float_outputs,
        quantized_outputs,
        compiled_outputs,
        size_in_bytes(subject.model),
        size_in_bytes(result.quantized),
        speed,
    )


def _run(network: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(image) for image in _one_by_one(images)])


def _one_by_one(images: Tensor) -> tuple[Tensor, ...]:
    return images.chunk(len(images))


def _speed(subject: Subject, compiled: Callable[[Tensor], Any]) -> Ratio:
    # Compiled like the int8 graph, with freezing: without it the comparison would flatter int8.
    image = subject.test[:1]
    baseline = CompiledModule(quantfx.capture(subject.model, (image,)))
    return ratio(lambda: baseline(image), lambda: compiled(image), rounds=31)


def _table(measured: Measured) -> Table:
    table = Table("", "measured", "which means", show_lines=True)
    for row in _rows(measured):
        table.add_row(*row)
    return table


def _rows(measured: Measured) -> Iterator[tuple[str, str, str]]:
    for name, outputs, meaning in (
        ("q/dq graph in float", measured.quantized_outputs, "only rounding to 8 bits differs"),
        ("compiled to int8", measured.compiled_outputs, "this is what the machine will run"),
    ):
        same = top1_agreement(measured.float_outputs, outputs)
        decibels = sqnr_db(measured.float_outputs, outputs)
        yield (
            f"{name}:\ntop-1 agreement",
            f"{same:.1%}",
            f"{round(same * len(outputs))} of {len(outputs)} images keep the class that the float "
            f"network gives them; {meaning}.",
        )
        yield (
            f"{name}:\nsignal to noise",
            f"{decibels:.1f} dB",
            f"Outputs are off by {10 ** (-decibels / 20):.0%} of their own size; {meaning}.",
        )
    yield _size_row(measured)
    yield _speed_row(measured.speed)


def _size_row(measured: Measured) -> tuple[str, str, str]:
    before, after = measured.float_bytes, measured.quantized_bytes
    return (
        "size of all tensors",
        f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB",
        f"The network takes {after / before:.0%} of the memory it took in float.",
    )


def _speed_row(speed: Ratio) -> tuple[str, str, str]:
    return (
        "speed, one image",
        str(speed),
        f"int8 is {'' if speed.median > 1 else 'not '}faster than float compiled by the same "
        "Inductor with freezing, when the two take turns; half of the turns lie in this range.",
    )


def _draw(console: Console, subject: Subject, result: Result, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    before = quantfx.capture(subject.model, (subject.calibration[:1],))
    for name, graph in (("before", before), ("after", result.quantized)):
        written = quantfx.draw(graph, output / f"{name}.svg")
        console.print(f"{name}: {written}", markup=False, highlight=False)

"""``quantfx demo``: quantize a trained network step by step, and measure cost and gain.

Without a C++ compiler nothing is compiled, and without Graphviz no picture is drawn: the demo says
so and goes on.
"""

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
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.text import print_report
from quantfx.result import Result
from quantfx.tools.doctor import programs
from quantfx.tools.measure.metrics import size_in_bytes, sqnr_db, top1_agreement
from quantfx.tools.measure.side_by_side import Ratio, ratio
from quantfx.tools.models import photographs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0

_COMPARED = 16  # images for the page's comparison, operator by operator


@dataclass(frozen=True)
class Subject:
    """The network that the demo quantizes, with its data.

    Attributes:
        title: One line about the network and its data.
        model: A classifier in eval mode that takes one image tensor.
        calibration: Images to calibrate with.
        test: Other images, to compare the float and int8 networks on.
    """

    title: str
    model: nn.Module
    calibration: Tensor
    test: Tensor


@dataclass(frozen=True)
class Measured:
    """The figures of the table: outputs on the test images, sizes and speed.

    Attributes:
        float_outputs: Outputs of the original network.
        quantized_outputs: Outputs of the q/dq graph.
        int8_outputs: Outputs of the int8 kernels.
        float_bytes: Bytes of all tensors of the network.
        quantized_bytes: Bytes of all tensors of the q/dq graph.
        speed: Speed of int8 over float, both compiled or neither.
        compiled: Whether both were compiled.
    """

    float_outputs: Tensor
    quantized_outputs: Tensor
    int8_outputs: Tensor
    float_bytes: int
    quantized_bytes: int
    speed: Ratio
    compiled: bool


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
    """Quantize, compile, compare and write a page; print every step and return the figures.

    Args:
        output: Folder for page and drawings, made if missing.
        subject: What to quantize; by default EfficientNet-Lite0 on photographs.
        console: Where to print; by default standard output.
        full: Report every operator, reason and pass.

    Raises:
        QuantfxError: a package of the demo is missing.
    """
    console = console or Console()
    subject = subject or efficientnet_on_photographs()
    console.rule("[bold]1. The network and its data", align="left")
    parameters = sum(parameter.numel() for parameter in subject.model.parameters())
    console.print(f"{subject.title}.", markup=False, highlight=False)
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {size_in_bytes(subject.model) / 1e6:.1f} MB; "
        f"{len(subject.calibration)} images to calibrate, {len(subject.test)} others to compare."
    )
    # What Inductor lacks here.
    checks = (programs.compiler(), programs.python_headers())
    missing = "; ".join(f"{each.name}: {each.found}" for each in checks if each.status == "problem")
    console.rule(f"[bold]2. Quantize{'' if missing else ' and compile'}", align="left")
    result, int8 = _quantize(console, subject, missing)
    console.rule("[bold]3. What became of every operator", align="left")
    print_report(console, result.report, full=full)
    console.rule("[bold]4. What it cost and what it won", align="left")
    measured = _measure(console, subject, result, int8, compiled=not missing)
    console.print(_table(measured))
    console.rule("[bold]5. One page of it all", align="left")
    with console.status("Comparing every operator with its float one ..."):
        comparison = result.compare(_one_by_one(subject.test)[:_COMPARED])
    page = _write(console, subject, result, comparison, output)
    console.rule("[bold]What next", align="left")
    _say_what_next(console, page, result, comparison)
    return measured


def _quantize(
    console: Console, subject: Subject, missing: str
) -> tuple[Result, Callable[[Tensor], Any]]:
    result = quantfx.quantize(
        subject.model,
        (subject.calibration[:1],),
        backend="x86",
        calibration=_one_by_one(subject.calibration),
    )
    if missing:
        console.print(
            f"result.compile() is left out, as Inductor cannot compile here ({missing}). The int8 "
            "network runs as result.module, which needs no compiler.",
            markup=False,
        )
        return result, result.module
    status = "Inductor compiles the quantized graph to int8 kernels ..."
    with console.status(status), warnings.catch_warnings():
        # torch 2.13's own lowering of int8 kernels warns about how it copies zero points.
        warnings.filterwarnings("ignore", message="To copy construct from a tensor")
        return result, result.compile()


def _measure(
    console: Console,
    subject: Subject,
    result: Result,
    int8: Callable[[Tensor], Any],
    *,
    compiled: bool,
) -> Measured:
    with console.status("Running the test images through all three networks ..."):
        float_outputs = _run(subject.model, subject.test)
        quantized_outputs = _run(result.quantized, subject.test)
        int8_outputs = _run(int8, subject.test)
    with console.status("The float network and the int8 one take turns ..."):
        speed = _speed(subject, int8, compiled=compiled)
    return Measured(
        float_outputs,
        quantized_outputs,
        int8_outputs,
        size_in_bytes(subject.model),
        size_in_bytes(result.quantized),
        speed,
        compiled,
    )


def _run(network: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(image) for image in _one_by_one(images)])


def _one_by_one(images: Tensor) -> tuple[Tensor, ...]:
    return images.chunk(len(images))


def _speed(subject: Subject, int8: Callable[[Tensor], Any], *, compiled: bool) -> Ratio:
    # Compiled like the int8 graph, with freezing: without it the comparison would flatter int8.
    image = subject.test[:1]
    graph = quantfx.capture(subject.model, (image,))
    baseline = CompiledModule(graph) if compiled else graph
    with torch.no_grad():
        return ratio(lambda: baseline(image), lambda: int8(image), rounds=31)


def _table(measured: Measured) -> Table:
    table = Table("", "measured", "which means", show_lines=True)
    for row in _rows(measured):
        table.add_row(*row)
    return table


def _rows(measured: Measured) -> Iterator[tuple[str, str, str]]:
    for name, outputs, meaning in (
        ("q/dq graph in float", measured.quantized_outputs, "only rounding to 8 bits differs"),
        ("on int8 kernels", measured.int8_outputs, "this is what the machine will run"),
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
    yield _speed_row(measured.speed, measured.compiled)


def _size_row(measured: Measured) -> tuple[str, str, str]:
    before, after = measured.float_bytes, measured.quantized_bytes
    return (
        "size of all tensors",
        f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB",
        f"The network takes {after / before:.0%} of the memory it took in float.",
    )


def _speed_row(speed: Ratio, compiled: bool) -> tuple[str, str, str]:
    beside = (
        "compiled by the same Inductor with freezing" if compiled else "run eagerly, as int8 is"
    )
    return (
        "speed, one image",
        str(speed),
        f"int8 is {'' if speed.median > 1 else 'not '}faster than float {beside}, when the two "
        "take turns; half of the turns lie in this range.",
    )


def _write(
    console: Console, subject: Subject, result: Result, comparison: Comparison, output: Path
) -> Path:
    """Write the page, and draw the graph before and after if Graphviz is available."""
    output.mkdir(parents=True, exist_ok=True)
    before = quantfx.capture(subject.model, (subject.calibration[:1],))
    if programs.dot().status == "ok":
        for name, graph in (("before", before), ("after", result.quantized)):
            written = quantfx.draw(graph, output / f"{name}.svg")
            console.print(f"drawing {name}: {written}", markup=False, highlight=False)
    else:
        console.print("Drawings are left out, as Graphviz's dot is not here; the page needs none.")
    title = subject.title.partition(";")[0]
    return result.html(output / "report.html", comparison, title=title, stages={"captured": before})


def _say_what_next(console: Console, page: Path, result: Result, comparison: Comparison) -> None:
    worst = comparison.ranked()[0].site
    saved = page.with_name("model.quantfx")
    result.save(saved)
    for line in (
        f"Open in a browser: {page.resolve().as_uri()}",
        f"Ask for one operator: quantfx explain {saved} {worst}",
        f"The same report again: quantfx report {saved} --full",
        "What this machine can do: quantfx doctor",
        "A model of your own: docs/quickstart.md",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)

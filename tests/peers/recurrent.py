"""Speed, accuracy and file of int8 recurrent layers: quantfx's own kernel, torch's, and float.

Run by hand, on one thread, in an environment that also holds the real weights::

    pip install --no-deps resemblyzer==0.1.4
    python -m tests.peers.recurrent

The speaker encoder has its published weights; frames are seeded. Accuracy is that of 64 sequences.
Engines take turns, so that a busy machine is so for all of them; a time is the least that the
thread itself took in one of its turns.
"""

from __future__ import annotations

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

TURNS = 15


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
        least = dict.fromkeys((each.name for each in found), float("inf"))
        for _ in range(TURNS):
            for each in found:
                begin = time.thread_time()
                each.run(x)
                least[each.name] = min(least[each.name], time.thread_time() - begin)
        expected = outputs(model, data, len(x))
        for each in found:
            exact = each is found[0]
            noise = "" if exact else f"{sqnr_db(expected, outputs(each.run, data, len(x))):.1f}"
            seconds = least[each.name]
            table.add_row(
                each.name,
                f"{1000 * seconds:.2f}",
                f"{least[found[0].name] / seconds:.2f}",
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
    for batch in (1, 8):
        Console().print(measure(f"{name}, batch {batch}", encoder, frames(batch), data))
    torch.manual_seed(0)
    words = torch.randint(500, (4, 64))
    Console().print(measure("tagger, 2 GRUs both ways", Tagger(width=256).eval(), words, words))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

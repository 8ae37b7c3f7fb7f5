"""Serve one saved file from several threads, in a process that has no code of the model.

It prints::

    64 answers, the same as of one thread
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

import quantfx


def save(path: Path) -> None:
    """Quantize a network and write it: done once, where the model and the data are."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    batches = [torch.randn(4, 3, 8, 8) for _ in range(4)]
    quantfx.quantize(model, (batches[0],), calibration=batches).save(path)


def serve(path: Path, requests: list[Tensor], threads: int) -> list[Tensor]:
    """Load the file and answer requests of any number of rows, in their order."""
    int8 = quantfx.load(path).module

    def answer(x: Tensor) -> Tensor:
        with torch.no_grad():  # a setting of each thread
            scores: Tensor = int8(x)
            return scores

    answer(requests[0])  # the first call packs the weights
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(answer, requests))


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.quantfx"
        save(file)
        requests = [torch.randn(1 + i % 5, 3, 8, 8) for i in range(64)]
        many, one = serve(file, requests, threads=4), serve(file, requests, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))
    print(len(many), "answers, the same as of one thread")

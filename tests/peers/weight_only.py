"""Linears whose weight alone is quantized: ours, torch's and float, side by side on one thread.

    python -m tests.peers.weight_only [rows x channels x inputs ...]

prints microseconds, the least of all rounds; every call takes another weight of 64 MiB, so that weights
come from memory as they do in a network. docs/guides/decoders.md shows what it prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from quantfx.backends.weight_only.operator import weight_linear
from quantfx.passes.quant.nibbles import pack_nibbles

_SIZES = ("1x768x768", "8x768x768", "128x768x768", "1x3072x768", "1x768x3072", "1x4096x4096")
_ROUNDS = 8
_MEMORY = 2**24  # values of all float weights together
_LONG = 0.2  # seconds, of a call that is timed once


def contestants(rows: int, channels: int, inputs: int) -> dict[str, Callable[[int], Tensor]]:
    """Return by name what multiplies rows with the weight of a number."""
    count = max(1, _MEMORY // (channels * inputs))
    x, one = torch.randn(rows, inputs), torch.rand(channels)
    floats = [torch.randn(channels, inputs) for _ in range(count)]
    bytes_ = [torch.randint(-128, 128, (channels, inputs)).to(torch.int8) for _ in range(count)]
    packed = [pack_nibbles(each >> 4) for each in bytes_]
    of_torch = [
        torch._convert_weight_to_int4pack_for_cpu((each >> 4).int() + 8, 1)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        for each in bytes_
    ]
    pairs = torch.rand(inputs // 32, channels, 2)
    ours, groups = (
        weight_linear(),
        {size: torch.rand(channels, inputs // size) for size in (32, 128)},
    )
    return {
        "float": lambda at: functional.linear(x, floats[at % count]),
        "torch int8": lambda at: torch._weight_int8pack_mm(x, bytes_[at % count], one),  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        "torch int4, 32": lambda at: torch._weight_int4pack_mm_for_cpu(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            x, of_torch[at % count], 32, pairs
        ),
        "int8": lambda at: ours(x, bytes_[at % count], one, None, None),
        "int8, 32": lambda at: ours(x, bytes_[at % count], groups[32], None, None),
        "int8, 128": lambda at: ours(x, bytes_[at % count], groups[128], None, None),
        "int4, 32": lambda at: ours(x, packed[at % count], groups[32], None, None),
        "int4, 128": lambda at: ours(x, packed[at % count], groups[128], None, None),
    }


def measured(calls: dict[str, Callable[[int], Tensor]]) -> dict[str, float]:
    """Return microseconds of each, which take turns."""
    best = dict.fromkeys(calls, float("inf"))
    other = torch.zeros(2 * _MEMORY)
    for turn in range(_ROUNDS):
        for name, call in calls.items():
            if best[name] > _LONG * 1e6 and turn:
                continue
            other += 1  # some read the same weights, which leave the cache here
            for at in range(8):
                start = time.perf_counter()
                call(8 * turn + at)
                best[name] = min(best[name], (time.perf_counter() - start) * 1e6)
                if best[name] > _LONG * 1e6:
                    break
    return best


def main(sizes: list[str]) -> None:
    """Print a row for each size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shown = False
    with torch.no_grad():
        for size in sizes or _SIZES:
            rows, channels, inputs = map(int, size.split("x"))
            found = measured(contestants(rows, channels, inputs))
            if not shown:
                print("| rows x channels x inputs |", " | ".join(found), "|")
                shown = True
            print(
                f"| {size} |", " | ".join(f"{each:.0f}" for each in found.values()), "|", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])

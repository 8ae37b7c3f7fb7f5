"""Prints what quantfx sees of the CPU that this runs on, and which of its kernels work there."""

from __future__ import annotations

import torch

from quantfx.backends.checks import targets
from quantfx.backends.direct.runtime.library import runtime as plans
from quantfx.backends.recurrent.library import runtime as recurrent
from quantfx.backends.weight_only.library import kernels as weight_only


def main() -> None:
    """Print capabilities, the target, and each library's reason not to work."""
    able = torch.cpu.get_capabilities()
    print("capabilities:", *sorted(name for name, has in able.items() if has is True))
    print("target:", targets.host().name)
    for name, loaded in (
        ("weight_only", weight_only()),
        ("recurrent", recurrent()),
        ("direct", plans()),
    ):
        print(f"{name}: {loaded.reason or 'works'}", flush=True)


if __name__ == "__main__":
    main()

"""Runs tests on CPUs that this machine does not have: ``python -m tests.emulated``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.emulated.bochs import build_bochs
from tests.emulated.boot import build_boot
from tests.emulated.job import MODELS, build_job
from tests.emulated.machine import run_machine
from tests.emulated.root import build_root

# The kernels of our own in C++, and those of oneDNN that prepared plans and torch's operators call.
_TESTS = (
    "tests/backends/direct/runtime/test_verify.py",
    "tests/backends/direct/test_kernels.py",
    "tests/backends/direct/test_saturation.py",
    "tests/backends/direct/test_random_graphs.py",
    "tests/backends/direct/rules/test_transposed.py",
    "tests/backends/direct/rules/test_products.py",
    "tests/backends/direct/test_attention.py",
    "tests/backends/recurrent/test_layer.py",
    "tests/backends/weight_only/test_operator.py",
)


def main() -> None:
    """Build what is missing, and run each CPU model."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulated", description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="all, if none is named")
    parser.add_argument("--folder", type=Path, default=Path(".emulated"), help="9 GB go there")
    parser.add_argument("--hours", type=float, default=3.0, help="when to switch a machine off")
    parser.add_argument("pytest", nargs="*", default=_TESTS, help="arguments of pytest, behind --")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bochs = build_bochs(folder)
    root = folder / "root.img"
    disks = {"root": root if root.exists() else build_root(folder), "boot": build_boot(folder)}
    for model in given.model or MODELS:
        job = build_job(folder, model, given.pytest)
        began = time.monotonic()
        said = run_machine([str(bochs)], model, {**disks, "job": job}, folder, 3600 * given.hours)
        print(f"\n{model}, {(time.monotonic() - began) / 60:.0f} minutes:\n{said}", flush=True)


if __name__ == "__main__":
    main()

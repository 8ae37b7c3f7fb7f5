"""``python -m quantfx.tools.fuzz.run``: random models of a backend's templates, checked."""

from __future__ import annotations

import argparse
import time
from typing import Any

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.tools.fuzz.case import make_case
from quantfx.tools.fuzz.check import check
from quantfx.tools.fuzz.tables_and_recurrent import TABLES_AND_RECURRENT

# Options to use in turn, by name of the backend.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "x86": (
        {"kernels": "onednn"},
        {"kernels": "auto"},
        {"kernels": "onednn", "observer": "histogram", "weight_observer": "min_max"},
        {"kernels": "auto", "smooth": 0.8},
    ),
    "native": ({},),
}


def variants(name: str) -> list[tuple[Backend, dict[str, Any]]]:
    """Return the backends to use in turn, each with its options."""
    return [(backends.get(name, **options), options) for options in VARIANTS[name]]


def main(argv: list[str] | None = None) -> int:
    """Check seeds, print each fault and the program of the first; return 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m quantfx.tools.fuzz.run", description=__doc__)
    parser.add_argument("--backend", default="x86", choices=VARIANTS, help="by name")
    parser.add_argument("--first", type=int, default=0, help="seed to start with")
    parser.add_argument("--count", type=int, default=200, help="how many seeds")
    parser.add_argument(
        "--compile", type=int, default=0, metavar="N", help="every Nth, compiled too"
    )
    parser.add_argument(
        "--tables-and-recurrent", action="store_true", help="models that have such layers"
    )
    parser.add_argument("--show", action="store_true", help="print every program")
    parser.add_argument("--until-fault", action="store_true", help="stop at the first fault")
    given = parser.parse_args(argv)
    turns = variants(given.backend)
    seeds = faulty = 0
    start = time.process_time()
    for seed in range(given.first, given.first + given.count):
        backend, options = turns[seed % len(turns)]
        case = make_case(seed, backend, TABLES_AND_RECURRENT if given.tables_and_recurrent else ())
        compiles = bool(given.compile) and seed % given.compile == 0
        faults = check(case, backend, compiles=options if compiles else None)
        seeds += 1
        if given.show or (faults and not faulty):
            print(case)
        for fault in faults:
            print(str(fault).replace("\n", "\n    "), flush=True)
        faulty += bool(faults)
        if faults and given.until_fault:
            break
    print(f"{seeds} seeds, {faulty} with faults, {time.process_time() - start:.0f} CPU-seconds")
    return int(bool(faulty))


if __name__ == "__main__":
    raise SystemExit(main())

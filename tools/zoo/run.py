"""Take about a hundred published architectures through quantfx: ``make zoo``.

Rows are saved as they are measured, so that a stopped sweep can resume.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.measure.machine import this_machine
from quantfx.tools.zoo.faults import Explained, load_explained, unexplained
from quantfx.tools.zoo.networks import Network, load_networks, select
from quantfx.tools.zoo.process import Limits, Store, measure_apart
from quantfx.tools.zoo.row import Row
from quantfx.tools.zoo.table import page, table

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure missing networks, print their rows, and write the page of all networks.

    Args:
        arguments: Arguments of the command line.

    Returns:
        1 if a row has an unexplained fault, 2 if a requested network does not exist.
    """
    parser = argparse.ArgumentParser(prog="make zoo", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="names; measured again")
    parser.add_argument("--page", action="store_true", help="measure nothing, write what is known")
    parser.add_argument("--fresh", action="store_true", help="measure all of them again")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="of one network")
    parser.add_argument("--gigabytes", type=float, default=Limits.gigabytes, help="of one network")
    parser.add_argument("--folder", type=Path, default=_ROOT / ".zoo", help="of rows and logs")
    parser.add_argument("--output", type=Path, default=_ROOT / "ZOO.md", help="the page")
    asked = parser.parse_args(arguments)
    console = Console()
    try:
        networks = load_networks()
        chosen = select(networks, [name for each in asked.only for name in each.split(",") if name])
        explained = load_explained()
    except QuantfxError as error:
        console.print(str(error), markup=False)
        return 2
    store = Store(asked.folder)
    again = asked.fresh or len(chosen) < len(networks)
    missing = [each for each in chosen if again or store.row(each.name) is None]
    if asked.page:
        missing = []
    limits = Limits(asked.seconds, asked.gigabytes, asked.threads)
    for done, row in enumerate(_measure(missing, store, limits, asked.jobs), start=1):
        console.print(f"[{done}/{len(missing)}] {_describe(row, explained)}", markup=False)
    known = [store.row(each.name) for each in chosen]
    rows = [each for each in known if each is not None]
    if len(chosen) == len(networks):
        unmeasured = [each.name for each in chosen if store.row(each.name) is None]
        text = page(rows, explained, _setting(rows), unmeasured)
        asked.output.write_text(text, encoding="utf-8")
        console.print(f"written: {asked.output}", markup=False)
    console.print(table(rows), markup=False, soft_wrap=True)
    failing = unexplained(rows, explained)
    console.print(f"{len(rows)} networks, {len(failing)} with a fault that nothing explains")
    return 1 if failing else 0


def _measure(networks: Sequence[Network], store: Store, limits: Limits, jobs: int) -> Iterator[Row]:
    measure = partial(measure_apart, commit=_commit(), store=store, limits=limits)
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(measure, networks)


def _describe(row: Row, explained: Explained) -> str:
    seconds = sum(stage.seconds for stage in row.stages.values())
    decibels = ", ".join(f"{what} {number:.0f} dB" for what, number in row.decibels.items())
    failing = unexplained([row], explained).get(row.network, ())
    return "\n    ".join([f"{row.network}: {seconds:.0f} s; {decibels}", *failing])


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _setting(rows: Sequence[Row]) -> str:
    machine = this_machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "transformers"))
    commits = ", ".join(sorted({row.commit for row in rows}))
    capped = f", at most {machine.isa_cap}" if machine.isa_cap else ""
    return (
        f"{machine.date[:10]}, {machine.cpu}, target {machine.target}{capped}, {machine.system}, "
        f"{packages}, commit {commits}."
    )


if __name__ == "__main__":
    sys.exit(main())

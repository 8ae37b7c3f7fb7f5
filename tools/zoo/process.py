"""Measure a network in its own process, which may crash, hang or eat memory alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantfx.tools.zoo.networks import Network
from quantfx.tools.zoo.row import Row, Stage


@dataclass(frozen=True)
class Limits:
    """The limits of a process.

    Attributes:
        seconds: Time limit.
        gigabytes: Limit of memory that it writes to.
        threads: Threads of torch.
    """

    seconds: float = 1200
    gigabytes: float = 10
    threads: int = 1


@dataclass(frozen=True)
class Store:
    """The folder of rows: one JSON file per network, beside the output of its process."""

    folder: Path

    def file(self, network: str) -> Path:
        """Return the file of a network's row."""
        return self.folder / f"{network}.json"

    def row(self, network: str) -> Row | None:
        """Return the finished row of a network; None if there is none."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return Row.from_json(self.file(network).read_text(encoding="utf-8"))
        return None

    def keep(self, row: Row) -> None:
        """Write a row."""
        self.file(row.network).write_text(row.to_json(), encoding="utf-8")

    def running(self, network: str) -> Path:
        """Return the file of a row that a process is still measuring."""
        return self.folder / f"{network}.running"

    def log(self, network: str) -> Path:
        """Return the file of a process's output."""
        return self.folder / f"{network}.log"


def measure_apart(network: Network, commit: str, store: Store, limits: Limits) -> Row:
    """Measure one network, and return a row whatever its process does.

    Args:
        network: One of the zoo.
        commit: Commit of quantfx.
        store: Where to keep the row.
        limits: Limits of the process.
    """
    store.folder.mkdir(parents=True, exist_ok=True)
    running = store.running(network.name)
    running.unlink(missing_ok=True)
    store.file(network.name).unlink(missing_ok=True)
    ended = _run(network.name, commit, store, limits)
    row = Row(network.name, network.library, commit)
    with suppress(OSError, ValueError):
        row = Row.from_json(running.read_text(encoding="utf-8"))
    if ended:
        _note_end(row, ended)
    store.keep(row)
    running.unlink(missing_ok=True)
    return row


def _run(network: str, commit: str, store: Store, limits: Limits) -> str:
    """Return how the process failed; "" if it did not."""
    command = [sys.executable, "-m", "quantfx.tools.zoo.measure", network, commit]
    command += [str(store.running(network)), str(limits.gigabytes)]
    variables = {"OMP_NUM_THREADS": str(limits.threads), "CUDA_VISIBLE_DEVICES": ""}
    with (
        store.log(network).open("wb") as log,
        subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,  # with the compilers that it starts
        ) as process,
    ):
        try:
            code = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            return f"it took more than {limits.seconds:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return "" if code == 0 else f"its process ended with exit code {code}"


def _note_end(row: Row, ended: str) -> None:
    for name, stage in row.stages.items():
        if stage.outcome == "ended":
            row.stages[name] = Stage("ended", stage.seconds, ended)
            return
    row.stages["build"] = Stage("ended", 0.0, ended)

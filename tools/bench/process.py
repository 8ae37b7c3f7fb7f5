"""An engine in its own process, which runs one turn at a time on request.

Importing torchao changes Inductor's configuration for good, and every engine has its own threads
and memory. So each gets a new process, which stays alive and sleeps during the turns of others.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engine import Engine, EngineError, EngineUnavailable
from quantfx.tools.bench.engines import ENGINES
from quantfx.tools.bench.onednn_verbose import TIMESTAMPS
from quantfx.tools.bench.session import Built, Session
from quantfx.tools.bench.workload import load_workload

_LOG = "output.txt"
_SECONDS_TO_END = 10
# Threads of OpenMP and ONNX Runtime spin on for some milliseconds after their last work. Without a
# rest, engines of 0.3 ms a call had rounds of 1 to 3 ms on two cores; with it, below 0.8 ms.
_SECONDS_TO_REST = 0.03


@dataclass(frozen=True)
class _Failure:
    """An error as it travels between processes."""

    error: QuantfxError


class ProcessWorker:
    """A `Worker` in a new process.

    Each process has an empty Inductor cache, so that no engine reuses another's compiled code. The
    engine's output goes to a file.

    Args:
        engine: One of the known engines.
        model: A named network or a user's function.
        batch: Rows of a batch of a named network.
        threads: Number of threads of torch, and of the engine if it has its own.

    Raises:
        WorkloadError: the model cannot be loaded; no engine could be measured on it.
    """

    def __init__(self, engine: Engine, model: str, batch: int, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="quantfx-bench-", ignore_cleanup_errors=True
        )
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=serve, args=(other, engine.name, model, batch, threads, self._folder.name)
        )
        self._process.start()
        other.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def build(self) -> Built:
        """See `Session.build`."""
        built: Built = self._ask("build")
        return built

    def turn(self, calls: int) -> float:
        """See `Session.turn`; first waits until other engines' threads sleep."""
        time.sleep(_SECONDS_TO_REST)
        seconds: float = self._ask("turn", calls)
        return seconds

    def breakdown(self, repeats: int) -> Breakdown:
        """See `Session.breakdown`."""
        breakdown: Breakdown = self._ask("breakdown", repeats)
        return breakdown

    def peak_bytes(self) -> int:
        """See `Session.peak_bytes`."""
        peak: int = self._ask("peak_bytes")
        return peak

    def close(self) -> None:
        """End the process and delete its folder."""
        self._connection.close()  # the process reads end of file and returns
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._folder.cleanup()

    def _ask(self, method: str, *arguments: Any) -> Any:
        with suppress(BrokenPipeError):  # then there is no reply
            self._connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(_SECONDS_TO_END)
            raise EngineError(
                f"the process ended with exit code {self._process.exitcode}: {self._last_words()}",
                rule="process-ended",
            ) from error
        if isinstance(reply, _Failure):
            raise reply.error
        return reply

    def _last_words(self) -> str:
        log = Path(self._folder.name, _LOG)
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "it printed nothing")


def serve(
    connection: Connection, engine: str, model: str, batch: int, threads: int, folder: str
) -> None:
    """Load the workload, then answer requests until the other side closes: the child's main.

    Args:
        connection: Requests ``(method, arguments)`` come in; replies go out, the first unasked.
        engine: Name of the engine.
        model: See ``load_workload``.
        batch: See ``load_workload``.
        threads: See `Session`.
        folder: For Inductor's cache and for what is printed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with Path(folder, _LOG).open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder, "inductor"))
    os.environ[TIMESTAMPS] = "1"
    try:
        session = Session(ENGINES[engine], load_workload(model, batch), threads)
    except QuantfxError as error:
        connection.send(_Failure(error))
        return
    connection.send("ready")
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            connection.send(_answer(session, method, arguments))
    session.close()


def _answer(session: Session, method: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(session, method)(*arguments)
    except EngineUnavailable as error:
        return _Failure(error)
    except Exception as error:  # foreign code: any error ends this engine's row only
        message = f"{type(error).__name__}: {error}"
        return _Failure(EngineError(message, rule="foreign-code"))

"""Watch whether calls of a model run its graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from quantfx.backends.inductor.compile_attempts import Attempt
from quantfx.backends.inductor.torch_internals import is_compiled
from quantfx.dynamo.compile_state import CompileState
from quantfx.patterns.errors import QuantfxWarning


class ThisCall(threading.local):
    """Observations of the current call of this thread.

    Attributes:
        ran: Whether a graph ran.
        attempts: Functions that Dynamo started to compile.
    """

    ran = False

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []


class CallWatch:
    """Watches, for each call of a model, what Dynamo ran, and reports what it left to Python.

    Args:
        state: Where to report.
        name: Name of the model, for messages.

    Attributes:
        call: Observations of the current call; set ``ran = False`` at its start.
    """

    def __init__(self, state: CompileState, name: str) -> None:
        self.call = ThisCall()
        self._state = state
        self._name = name
        self._idle = False  # it was reported that a call ran no graph
        self._skipped: dict[object, str] = {}

    def attempted(self, attempt: Attempt, advice: str) -> bool:
        """Note that Dynamo compiles or is at its limit; see ``compile_attempts.Watch``.

        Args:
            attempt: The attempt, for the model's graphs, which share code with no other model's.
            advice: Further advice at the limit.
        """
        if attempt.limit is not None:
            self._state.note_limit(attempt, advice)
        else:
            self.call.attempts.append(attempt)
        return False

    def watched(self, graph: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``graph`` to note that it ran."""
        call = self.call

        def run(*args: Any) -> Any:
            call.ran = True
            return graph(*args)

        return run

    def start_again(self) -> None:
        """Continue with new graphs; Dynamo does not retry functions that it skipped."""
        self._idle = False
        for where in self._skipped.values():
            self._state.record(where, _describe_skipped(where))

    def forget(self) -> None:
        """Forget the attempts of a call that failed."""
        self.call.attempts.clear()

    def judge(self, *, is_int8: bool) -> None:
        """Report what Dynamo left to Python in the call that just ended.

        Args:
            is_int8: Whether it should have run int8 graphs.
        """
        attempts, self.call.attempts = self.call.attempts, []
        for attempt in attempts:
            if attempt.code not in self._skipped and not is_compiled(attempt.code):
                self._skipped[attempt.code] = attempt.where
                warning = QuantfxWarning(
                    _describe_skipped(attempt.where), rule="runs-in-python", site=attempt.where
                )
                self._state.note_python(attempt.where, warning)
        if self.call.ran or not is_int8 or self._idle or self._state.is_partly_float:
            return
        self._idle = self._state.is_partly_float = True
        warning = QuantfxWarning(
            f"a call of {self._name} ran none of its int8 graphs: Dynamo left all of it to Python, "
            "where layers compute in float. It does so for what torch.compiler.disable, a stance "
            "or torch._dynamo.config.disable says, and where it skips a function "
            '(TORCH_LOGS="graph_breaks" shows it); a path without layers loses nothing',
            rule="runs-in-python",
            site=self._name,
        )
        self._state.note_python(self._name, warning)


def _describe_skipped(where: str) -> str:
    return (
        f"Dynamo compiles nothing of {where}, as it cannot go on behind a graph break in a loop, a "
        "with or a try: layers that it calls itself compute in float and are in no graph; those of "
        'modules that it calls are. TORCH_LOGS="graph_breaks" shows what breaks it'
    )

"""Ask before a match, a rewrite or a kernel whether a bisection permits it.

Outside ``permitting`` everything is permitted, and ``may`` costs one read of a context variable. A
refused decision leaves the graph unchanged; the report says ``LEFT_FLOAT`` for sites that are not
quantized because of it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

LEFT_FLOAT = "left float by bisect"


@dataclass(frozen=True)
class Permit:
    """One decision of a pass, taken as a whole or not at all.

    Attributes:
        by: Name of the pass.
        template: The template variant that matched; empty if there is none.
        site: ``graph/node.slot``, with graph path and slot only where they apply; empty for the
            whole pass.
    """

    by: str
    template: str = ""
    site: str = ""

    @property
    def node(self) -> str:
        """The site without its slot: ``true_graph_0/conv2d`` of ``true_graph_0/conv2d.input``."""
        path, slash, name = self.site.rpartition("/")
        return path + slash + name.partition(".")[0]

    def __str__(self) -> str:
        template = f" {self.template}" if self.template else ""
        return f"{self.by}:{template} at {self.site}" if self.site else f"{self.by} as a whole"


class Permits:
    """Answers requests of passes, and keeps the requests in order.

    Args:
        granted: The granted permits; None for all.
        refused: Exceptions from what is granted.

    Attributes:
        asked: Every permit that was asked for, once each, with the answer.
    """

    def __init__(
        self, granted: Collection[Permit] | None = None, refused: Collection[Permit] = ()
    ) -> None:
        self._granted = None if granted is None else frozenset(granted)
        self._refused = frozenset(refused)
        self.asked: dict[Permit, bool] = {}

    def ask(self, permit: Permit) -> bool:
        """Return whether ``permit`` is granted, and remember that it was asked for."""
        granted = self._granted is None or permit in self._granted
        answer = granted and permit not in self._refused
        self.asked[permit] = answer
        return answer

    @property
    def refuses(self) -> bool:
        """Whether something was asked for and not granted."""
        return not all(self.asked.values())


_PERMITS: ContextVar[Permits | None] = ContextVar("quantfx_permits", default=None)


@contextmanager
def permitting(permits: Permits) -> Generator[Permits]:
    """Let ``permits`` answer the requests of passes in this context."""
    token = _PERMITS.set(permits)
    try:
        yield permits
    finally:
        _PERMITS.reset(token)


def may(by: str, template: str = "", site: object = "") -> bool:
    """Return whether the pass ``by`` may take a decision.

    Args:
        by: Name of the pass.
        template: The template variant that matched.
        site: The node with its graph path; empty for the whole pass.
    """
    permits = _PERMITS.get()
    return permits is None or permits.ask(Permit(by, template, str(site)))


def is_refusing() -> bool:
    """Whether something was refused in this context so far."""
    permits = _PERMITS.get()
    return permits is not None and permits.refuses

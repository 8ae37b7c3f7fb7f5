"""A command whose ``--help`` ends with explanations of words, and with examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click


class Command(click.Command):
    """A command with examples.

    Args:
        examples: Command lines.
        explained: Maps a word of the usage to rows of two columns about it.
        args: As for ``click.Command``.
        kwargs: As for ``click.Command``.
    """

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str],
        explained: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples
        self._explained = explained or {}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what words mean, then the examples."""
        for word, rows in self._explained.items():
            with formatter.section(word):
                formatter.write_dl(rows)
        write_lines(formatter, "Examples", self._examples)


def command(
    name: str,
    *examples: str,
    explained: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a function the command ``name``, see ``Command``."""
    return click.command(name, cls=Command, examples=examples, explained=explained)


def write_lines(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    """Write lines as they are, so that they can be copied."""
    with formatter.section(title):
        for line in lines:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")

"""The reference: every public name, from docstrings; and the command line."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from docs.generate.page import Page, fence, table

# Their `__all__` is what quantfx keeps; everything else is private by not being listed.
PUBLIC = (
    "quantfx",
    "quantfx.errors",
    "quantfx.checks",
    "quantfx.passes",
    "quantfx.patterns",
    "quantfx.backends",
    "quantfx.testing",
    "quantfx.compat",
)


def reference_pages() -> Iterator[Page]:
    """Yield an index, a page for each public module, and the command line."""
    pages = [_module_page(name) for name in PUBLIC]
    rows = [
        (f"[`{page.title}`]({page.uri.removeprefix('reference/')})", _first_line(page.title))
        for page in pages
    ]
    rows.append(("[`quantfx` in a shell](command-line.md)", "Every command and option."))
    text = table(("module", "about"), rows)
    names = "[Stability](../stability.md) says what is public, and for how long.\n"
    yield Page("reference/index.md", "Reference", f"{text}\n{names}")
    yield from pages
    yield _command_line()


def _first_line(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(module)) or "").partition("\n")[0]


def _uri(module: str) -> str:
    return f"reference/{module.removeprefix('quantfx.')}.md"


def _module_page(module: str) -> Page:
    found = importlib.import_module(module)
    about = _about(inspect.getdoc(found) or "")
    parts = [_entry(module, name, getattr(found, name)) for name in found.__all__]
    return Page(_uri(module), module, "\n".join([about, "", *parts]))


def _about(documented: str) -> str:
    """Return a module's docstring; a list of rules is a list."""
    lines: list[str] = []
    for line in documented.splitlines():
        rule = re.match(r"    (\S[^:]*): (.+)$", line)
        text = f"- **{rule[1]}**: {rule[2]}" if rule else line.replace("        ", "  ")
        lines.append(text)
    return "\n".join(lines)


def _entry(module: str, name: str, value: Any) -> str:
    path = f"{module}.{name}"
    if inspect.ismodule(value):
        link = _uri(path).removeprefix("reference/")
        return f"## `{name}` {{ #{path} }}\n\nModule, see [`{path}`]({link}).\n"
    origin = getattr(value, "__module__", "")
    if inspect.isclass(value) or inspect.isfunction(value):
        if origin.startswith("quantfx"):
            return f"::: {path}\n"
        return f"## `{name}` {{ #{path} }}\n\ntorch's own: `{origin}.{value.__qualname__}`.\n"
    return f"## `{name}` {{ #{path} }}\n\n{fence(str(value))}"


def missing_names(site: Path) -> list[str]:
    """Return the public names that have no entry in the pages that were built."""
    missing: list[str] = []
    for module in PUBLIC:
        text = (site / _uri(module).replace(".md", ".html")).read_text(encoding="utf-8")
        names = importlib.import_module(module).__all__
        missing += [f"{module}.{n}" for n in names if f'id="{module}.{n}"' not in text]
    return missing


def _command_line() -> Page:
    from quantfx.cli.program import program

    context = click.Context(program, info_name="quantfx", terminal_width=90)
    parts = [fence(program.get_help(context))]
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=90)
        parts += [f"## quantfx {name}\n", fence(command.get_help(inner))]
    return Page("reference/command-line.md", "The command line", "\n".join(parts))

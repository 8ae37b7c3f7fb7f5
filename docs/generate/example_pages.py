"""A page for each program of docs/examples: what it is about, its code, what it prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs.generate.page import ROOT, Page, fence, table

EXAMPLES = ROOT / "docs" / "examples"


def example_pages() -> Iterator[Page]:
    """Yield an index, then the pages."""
    files = [*sorted(EXAMPLES.glob("*.py")), *sorted(EXAMPLES.glob("extend/*.py"))]
    files += sorted([*EXAMPLES.glob("decoder/*.py"), *EXAMPLES.glob("from_cpp/*.py")])
    pages = [_page(file) for file in files]
    rows = [
        (f"[{page.title}]({page.uri.removeprefix('examples/')})", f"`docs/{page.uri[:-3]}.py`")
        for page in pages
    ]
    text = (
        "Each example is one file that runs alone: `python docs/examples/NAME.py`. The tests run "
        "all examples and compare their output.\n\n" + table(("what", "file"), rows)
    )
    walk = "[When int8 loses points](../accuracy.md) and [In your own tests](../guides/testing.md)"
    yield Page("examples/index.md", "Examples", f"{text}\n{walk} have longer examples.\n")
    yield from pages


def _page(file: Path) -> Page:
    source = file.read_text(encoding="utf-8")
    documented = ast.get_docstring(ast.parse(source)) or ""
    about, _, prints = documented.partition("\n\nIt prints::\n\n")
    name = file.relative_to(EXAMPLES).with_suffix("")
    code = re.sub(r'^""".*?"""\n+', "", source, flags=re.DOTALL)
    parts = [f"`docs/examples/{name}.py`\n"]
    beside = [(file.with_suffix(".toml"), "toml")]
    beside += [(each, "cpp") for each in sorted(file.parent.glob("*.cpp"))]
    for other, language in beside:
        if other.exists():
            parts += [f"`{other.name}` beside it:\n", fence(other.read_text("utf-8"), language)]
    parts += [fence(code, "python"), "It prints (`...` stands for more):\n"]
    parts.append(fence("\n".join(line.removeprefix("    ") for line in prints.splitlines())))
    title, colon, rest = about.partition(": ")
    lead = [f"{rest[0].upper()}{rest[1:]}\n"] if colon else []
    return Page(f"examples/{name}.md", title.rstrip("."), "\n".join([*lead, *parts]))

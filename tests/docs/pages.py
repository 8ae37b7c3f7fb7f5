"""The code of a page: blocks in their order, with what they print, as CONTRIBUTING.md describes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("", "python", "sh", "text", "toml")

# A comment in lines of its own, or a fence.
_PIECE = re.compile(
    r"^<!-- (?P<verb>run|sweep|not run)(?:: (?P<why>[^\n]+?))?(?P<hidden>\n.*?)?\s*-->$"
    r"|^```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_INCLUDE = re.compile(r"^# include: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Code of a page.

    Attributes:
        line: In front of its first.
        code: Python.
        slow: Whether `make sweep` alone runs it.
        prints: What the page says that it prints, or None; ``...`` stands for anything.
    """

    line: int
    code: str
    slow: bool = False
    prints: str | None = None


def pages() -> list[Path]:
    """Return README.md and every page of docs/; MIGRATION.md has a test of its own."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(text: str) -> list[Block]:
    """Return what is to be run, in order."""
    blocks: list[Block] = []
    before, end, runs = "", 0, False  # the piece before: its verb, its end, whether it is a block
    for piece in _PIECE.finditer(text):
        line = text.count("\n", 0, piece.start()) + 1
        adjacent = not text[end : piece.start()].strip()
        verb, language = piece["verb"], piece["language"]
        _require(verb != "not run" or piece["why"], line, "say why it is not run")
        _require(verb or language in LANGUAGES, line, f"write one of {', '.join(LANGUAGES)}")
        if verb == "run":
            blocks.append(Block(line, piece["hidden"] or ""))
        elif language == "text" and runs and adjacent:
            blocks[-1] = replace(blocks[-1], prints=piece["code"])
        marked = before if adjacent else ""
        runs = language == "python" and marked != "not run"
        if runs:
            blocks.append(Block(line, piece["code"], slow=marked == "sweep"))
        before, end = verb or "", piece.end()
    return blocks


def included(text: str) -> list[Path]:
    """Return the files whose text the built page shows; as examples they run by themselves."""
    return [ROOT / name for name in _INCLUDE.findall(text)]


def _require(holds: object, line: int, fix: str) -> None:
    if not holds:
        raise ValueError(f"line {line}: {fix}")

"""Pages that are files elsewhere in the tree, and links between files as links between pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath

from docs.generate.page import ROOT, Page

# Files that are no pages of docs/ -> their addresses.
FILES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "MIGRATION.md": "migration.md",
    "SECURITY.md": "security.md",
    "ZOO.md": "zoo.md",
    "backends/direct/README.md": "prepared-plans.md",
}
_PROGRAM = re.compile(r"examples/((extend|decoder)/)?\w+\.py")
_LINK = re.compile(r"(?<=\]\()(?P<path>(?!\w+:|#)[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")


def root_pages() -> list[Page]:
    """Return the pages, with their own first lines as titles."""
    pages: list[Page] = []
    for name, uri in FILES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("```python run", "```python")
        title, _, body = text.removeprefix("# ").partition("\n")
        pages.append(Page(uri, title, relinked(body, name, uri)))
    return pages


def relinked(text: str, name: str, uri: str) -> str:
    """Return text with the links of a file as the page at ``uri`` has them.

    Args:
        text: Of the file.
        name: Of the file, from the root of the tree: what links are relative to.
        uri: Of the page.
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(str(PurePosixPath(name).parent / match["path"]))
        address = FILES.get(target, target.removeprefix("docs/"))
        if _PROGRAM.fullmatch(address):
            address = address.replace(".py", ".md")  # the page that shows it
        if target not in FILES and not target.startswith("docs/"):
            return match[0]
        folder = str(PurePosixPath(uri).parent)
        return posixpath.relpath(address, folder) + (match["anchor"] or "")

    return _LINK.sub(link, text)

"""What MkDocs calls: pages that are made of the code, files shown in pages, and a last check."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from docs.generate.catalog import catalog_pages
from docs.generate.example_pages import example_pages
from docs.generate.page import ROOT, Page
from docs.generate.reference import missing_names, reference_pages
from docs.generate.root_pages import relinked, root_pages

_INCLUDE = re.compile(r"^# include: (.+)$", re.MULTILINE)
_MADE: dict[str, list[Page]] = {}


def on_config(config: MkDocsConfig) -> None:
    """Make the pages, and put those that the navigation does not list where they belong."""
    _MADE.update(
        root=root_pages(),
        Examples=list(example_pages()),
        Reference=list(reference_pages()),
        **{"Catalog": list(catalog_pages())},
    )
    assert config.nav is not None
    sections: dict[str, list[Any]] = {}
    for entry in config.nav:
        if isinstance(entry, dict):
            sections |= {key: value for key, value in entry.items() if isinstance(value, list)}
    for name, section in sections.items():
        _add(section, [{page.title: page.uri} for page in _MADE.get(name, [])[1:]])
    guides = sections["Guides"]
    listed = {uri for entry in guides for uri in entry.values()}
    found = sorted(f"guides/{file.name}" for file in (ROOT / "docs" / "guides").glob("*.md"))
    _add(guides, [uri for uri in found if uri not in listed])


def _add(section: list[Any], entries: Iterable[Any]) -> None:
    section.extend(entries)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what was made."""
    for page in (page for pages in _MADE.values() for page in pages):
        text = f"# {page.title}\n\n{page.text}"
        files.append(File.generated(config, page.uri, content=text))
        for uri, drawing in page.drawings.items():
            files.append(File.generated(config, uri, content=drawing))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Show the files that a page names, and link to pages instead of files."""

    def text_of(match: re.Match[str]) -> str:
        return (ROOT / match[1]).read_text(encoding="utf-8").rstrip()

    uri: str = page.file.src_uri
    if page.file.generated_by is not None:
        return markdown
    return _INCLUDE.sub(text_of, relinked(markdown, f"docs/{uri}", uri))


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a reference that lacks a public name.

    Raises:
        PluginError: names those that have no docstring, or could not be found.
    """
    if missing := missing_names(Path(config.site_dir)):
        raise PluginError(f"no entry in the reference: {', '.join(missing)}")

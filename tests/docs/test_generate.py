"""What `make docs` makes of files and code, as far as it is quick; the build itself is strict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import page
from docs.generate.example_pages import example_pages
from docs.generate.page import drawn, table
from docs.generate.reference import PUBLIC, missing_names, reference_pages
from docs.generate.root_pages import FILES, relinked, root_pages
from tests.docs.pages import ROOT, pages

_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
# What is made for the built pages alone.
_MADE = ("docs/reference/", "docs/catalog/", "docs/examples/index.md")


def test_links_lead_to_files_in_the_tree() -> None:
    """As a host of repositories shows the pages; `mkdocs build --strict` looks at the built ones."""
    for file in (*pages(), *(ROOT / name for name in FILES)):
        for link in _LINK.findall(file.read_text(encoding="utf-8")):
            target = (file.parent / link).resolve()
            made = str(target.relative_to(ROOT)).startswith(_MADE)
            assert made or target.exists(), f"{file.relative_to(ROOT)}: {link}"


def test_links_between_files_become_links_between_pages() -> None:
    text = "[a](../../ARCHITECTURE.md#words) [b](qat.md) [c](../examples/extend/npu.py) [d](https://x.y/z.md)"
    assert relinked(text, "docs/guides/xpu.md", "guides/xpu.md") == (
        "[a](../architecture.md#words) [b](qat.md) [c](../examples/extend/npu.md) [d](https://x.y/z.md)"
    )
    assert relinked("[a](docs/guides/qat.md)", "README.md", "index.md") == "[a](guides/qat.md)"


def test_every_root_file_and_program_has_a_page() -> None:
    assert {each.uri for each in root_pages()} == set(FILES.values())
    index, *programs = example_pages()
    files = (ROOT / "docs" / "examples").rglob("*.py")
    apart = ("accuracy", "own_tests")  # guides tell of these
    assert len(programs) == sum(file.parent.name not in apart for file in files)
    for each in programs:
        assert f"]({each.uri.removeprefix('examples/')})" in index.text
        assert "It prints" in each.text
        assert '"""' not in each.text.partition("````python\n")[2][:3]


def test_a_public_name_without_an_entry_is_found(tmp_path: Path) -> None:
    modules = list(reference_pages())[1:-1]
    assert [each.title for each in modules] == list(PUBLIC)
    for each in modules:
        file = tmp_path / each.uri.replace(".md", ".html")
        file.parent.mkdir(exist_ok=True)
        named = re.findall(r"^::: (\S+)$|\{ #(\S+) \}$", each.text, re.MULTILINE)
        file.write_text("".join(f'<h2 id="{a or b}">' for a, b in named))
    assert missing_names(tmp_path) == []
    (tmp_path / "reference" / "testing.html").write_text("")
    assert missing_names(tmp_path) == [
        "quantfx.testing.GraphSnapshot",
        "quantfx.testing.assert_quantized",
    ]


def test_without_dot_a_drawing_is_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "DOT_BINARY", "no-such-program")
    drawings: dict[str, str] = {}
    [text] = drawn("digraph { a -> b }", "a", "catalog/a.md", drawings)
    assert "digraph { a -> b }" in text
    assert not drawings


def test_cells_of_tables_keep_bars_and_lines() -> None:
    assert table(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x\\|y<br>z |\n"

"""Every Python block of README.md and docs/ runs, and prints what the page shows."""

from __future__ import annotations

import doctest
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import quantfx
from quantfx.tools.models.seeded import seeded
from tests.docs.network import Network
from tests.docs.pages import ROOT, Block, blocks_of, included, pages

PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages()}
RUN = [name for name, text in PAGES.items() if any(not block.slow for block in blocks_of(text))]
SLOW = [name for name, text in PAGES.items() if any(block.slow for block in blocks_of(text))]


def names() -> dict[str, Any]:
    """Return what the quick start says that pages may assume."""
    torch.manual_seed(0)
    batches = list(torch.randn(3, 2, 3, 8, 8))
    return {
        "__name__": "__main__",
        "torch": torch,
        "nn": nn,
        "quantfx": quantfx,
        "model": seeded(Network),
        "example": batches[0].clone(),
        "batches": batches,
        "loader": [(batch, torch.zeros(2)) for batch in batches],
    }


def run(name: str, blocks: Iterable[Block], capsys: pytest.CaptureFixture[str]) -> None:
    """Run blocks one after the other, in one namespace."""
    known = names()
    for block in blocks:
        # Empty lines in front, so that a traceback has the line of the page.
        exec(compile("\n" * block.line + block.code, name, "exec"), known)
        printed = capsys.readouterr().out
        if block.prints is not None:
            same = doctest.OutputChecker().check_output(
                block.prints, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            )
            assert same, f"{name}:{block.line} prints\n{printed}\nand shows\n{block.prints}"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks write files and drawings."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RUN)
def test_fast_blocks_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(name, [block for block in blocks_of(PAGES[name]) if not block.slow], capsys)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SLOW)
def test_all_blocks_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(name, blocks_of(PAGES[name]), capsys)


PAGE = """
<!-- run
x = 1
-->
```python
print(x)
```

```text
1
```

<!-- sweep -->
```python
slow
```

between

```text
no output
```

<!-- not run: needs a network -->
```python
never
```
"""


def test_blocks_are_read_with_their_comments_and_outputs() -> None:
    assert blocks_of(PAGE) == [
        Block(2, "\nx = 1"),
        Block(5, "print(x)\n", prints="1\n"),
        Block(14, "slow\n", slow=True),
    ]
    for wrong in ("```pycon\n>>> 1\n```\n", "<!-- not run -->\n```python\n```\n"):
        with pytest.raises(ValueError, match="line 1: "):
            blocks_of(wrong)


def test_included_files_are_examples() -> None:
    files = [file for text in PAGES.values() for file in included(text)]
    assert len(files) == 9
    assert all(file.is_relative_to(ROOT / "docs" / "examples") for file in files)
    assert all(file.is_file() for file in files)


def test_an_output_that_is_not_printed_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="page:1 prints"):
        run("page", [Block(1, "print(2)", prints="1\n")], capsys)

"""A graph beside the one that was stored for a test."""

from __future__ import annotations

import difflib
import hashlib
import re
import warnings
from pathlib import Path

from torch.fx import GraphModule

from quantfx.passes.draw.plain import to_plain_dot
from quantfx.passes.errors import ArgumentError
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from quantfx.tools.drawing.render import render

_SHOWN = 60  # lines of a difference
_LONGEST = 100  # characters of each of two names in that of a file, which may have 255


class GraphSnapshot:
    """Compares the graphs of one test with those in its files.

    Args:
        folder: Where the files are.
        test: Name of the test, of which the names of its files are made.
        update: Write the files instead of comparing.
        render: Folder for pictures of what differs; None for no pictures.
    """

    def __init__(
        self, folder: Path, test: str, *, update: bool = False, render: Path | None = None
    ) -> None:
        self._folder = folder
        self._test = test
        self._update = update
        self._render = render
        self._seen: set[str] = set()

    def __call__(self, module: GraphModule, name: str = "") -> None:
        """Compare a graph with the stored one.

        The text is the same for another hash seed, other names of nodes and another mode of export;
        it differs where operators, data types, shapes, templates, scales or zero points differ.

        Args:
            module: Captured, prepared, quantized or lowered.
            name: Which of several graphs of the test it is.

        Raises:
            AssertionError: the graph differs, or none is stored; shows the lines that differ.
            ArgumentError: the test has compared a graph of that name before.
        """
        __tracebackhide__ = True  # read by pytest
        if name in self._seen:
            message = f"{self._test} compares two graphs called '{name}'"
            fix = "give each a name: graph_snapshot(module, 'lowered')"
            raise ArgumentError(message, rule="taken-name", site=name, fix=fix)
        self._seen.add(name)
        stem = _file_name(self._test) + (f"+{_file_name(name)}" if name else "")
        file, actual = self._folder / f"{stem}.dot", to_plain_dot(module)
        if self._update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(actual, encoding="utf-8")
            return
        if not file.exists():
            raise AssertionError(f"no graph is stored in {file}: run pytest --update-graphs")
        expected = file.read_text(encoding="utf-8")
        if actual != expected:
            raise AssertionError(self._differs(file, stem, expected, actual))

    def _differs(self, file: Path, stem: str, expected: str, actual: str) -> str:
        lines = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), "expected", "actual", lineterm="", n=1
        )
        shown = list(lines)
        more = [f"... {len(shown) - _SHOWN} more lines"] if len(shown) > _SHOWN else []
        told = [f"the graph differs from {file}:", *shown[:_SHOWN], *more]
        if self._render is None:
            told.append("pytest --render-graphs=FOLDER draws both graphs")
        else:
            for which, text in (("expected", expected), ("actual", actual)):
                told.append(f"{which}: {_draw(text, self._render / f'{stem}-{which}.svg')}")
        return "\n".join([*told, "pytest --update-graphs stores the new graph"])


def _file_name(test: str) -> str:
    """Return ``test`` with characters that every system takes, different for different tests.

    It never holds the ``+`` that stands between the names of a test and of its graph.
    """
    plain = test.replace("[", "-", 1).removesuffix("]")
    name = re.sub(r"[^\w.-]", "_", plain, flags=re.ASCII)
    if name == plain and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"


def _draw(text: str, file: Path) -> Path:
    """Draw a graph; its text is written where Graphviz is absent or cannot draw it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantfxWarning)  # the path that is told says it
            return render(text, file)
    except QuantfxError:
        return render(text, file.with_suffix(".dot"))

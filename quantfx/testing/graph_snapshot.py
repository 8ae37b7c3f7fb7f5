"""Compare a graph with the graph that was stored for a test."""

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

_SHOWN = 60  # lines of a difference to show
_LONGEST = 100  # characters of each of the two names in a file name, which may have 255


class GraphSnapshot:
    """Compares the graphs of one test with its stored files.

    Args:
        folder: Folder of the files.
        test: Name of the test, which starts its files' names.
        update: Write the files instead of comparing.
        render: Folder for pictures of graphs that differ; None for no pictures.
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
        """Compare a graph with the stored graph.

        The text does not depend on the hash seed, names of nodes or mode of export. It differs if
        operators, data types, shapes, templates, scales or zero points differ.

        Args:
            module: A captured, prepared, quantized or lowered graph.
            name: Distinguishes several graphs of one test.

        Raises:
            AssertionError: the graph differs, or no graph is stored; shows the lines that differ.
            ArgumentError: the test has already compared a graph of that name.
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
    """Return ``test`` in characters that every system takes, distinct for distinct tests.

    It never holds ``+``, which separates the names of a test and of its graph.
    """
    plain = test.replace("[", "-", 1).removesuffix("]")
    name = re.sub(r"[^\w.-]", "_", plain, flags=re.ASCII)
    if name == plain and len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"


def _draw(text: str, file: Path) -> Path:
    """Draw a graph; write its DOT text if Graphviz is absent or cannot draw it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantfxWarning)  # the returned path says so
            return render(text, file)
    except QuantfxError:
        return render(text, file.with_suffix(".dot"))

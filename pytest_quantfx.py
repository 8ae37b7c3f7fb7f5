"""The pytest plugin: the fixture ``graph_snapshot`` and its options.

Every run of pytest imports this file if quantfx is installed. It is not part of the package
``quantfx``, so that torch and quantfx are imported only by the first test that uses the fixture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from quantfx.testing.graph_snapshot import GraphSnapshot


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of ``graph_snapshot``."""
    group = parser.getgroup("quantfx")
    group.addoption(
        "--update-graphs",
        action="store_true",
        help="write the graphs that graph_snapshot compares with anew",
    )
    group.addoption(
        "--render-graphs",
        type=Path,
        metavar="FOLDER",
        help="draw the expected and the actual graph of each difference into this folder",
    )


@pytest.fixture
def graph_snapshot(request: pytest.FixtureRequest) -> GraphSnapshot:
    """Compare graphs with stored ones: ``graph_snapshot(result.quantized, "qdq")``.

    The stored graphs are text, in ``__graphs__`` beside the test.
    """
    from quantfx.testing.graph_snapshot import GraphSnapshot

    file = request.path
    test = request.node.nodeid.partition("::")[2].replace("::", ".")
    return GraphSnapshot(
        file.parent / "__graphs__" / file.stem,
        test,
        update=bool(request.config.getoption("--update-graphs")),
        render=request.config.getoption("--render-graphs"),
    )

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.passes.errors import ArgumentError
from quantfx.patterns.errors import QuantfxWarning
from quantfx.testing import GraphSnapshot
from quantfx.tools.drawing import render
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two linears; the words of its sum differ between modes of export."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.last(y) + y


@pytest.fixture(scope="module")
def graph() -> torch.fx.GraphModule:
    return quantfx.capture(seeded(Net), (X,))


@pytest.fixture
def stored(graph: torch.fx.GraphModule, tmp_path: Path) -> Path:
    """The folder of a stored graph."""
    GraphSnapshot(tmp_path, "test_net", update=True)(graph)
    assert [file.name for file in tmp_path.iterdir()] == ["test_net.dot"]
    return tmp_path


def test_the_same_graph_by_other_ways(graph: torch.fx.GraphModule, stored: Path) -> None:
    GraphSnapshot(stored, "test_net")(graph)
    for strict in (False, True):
        program = torch.export.export(seeded(Net), (X,), strict=strict)
        GraphSnapshot(stored, "test_net")(quantfx.capture(program, (X,)))
    renamed = copy.deepcopy(graph)
    for place, node in enumerate(renamed.graph.nodes):
        if node.op == "call_function":
            node.name = f"other_{place}"
    GraphSnapshot(stored, "test_net")(renamed)


def test_free_sizes_have_the_same_names_by_either_export(tmp_path: Path) -> None:
    free = ({0: Dim("rows")},)
    GraphSnapshot(tmp_path, "test_net", update=True)(
        quantfx.capture(seeded(Net), (X,), dynamic_shapes=free)
    )
    for strict in (False, True):
        program = torch.export.export(seeded(Net), (X,), dynamic_shapes=free, strict=strict)
        GraphSnapshot(tmp_path, "test_net")(quantfx.capture(program))
    assert "f32 s" in (tmp_path / "test_net.dot").read_text()


@pytest.fixture
def other() -> torch.fx.GraphModule:
    """A graph without the activation."""
    graph = quantfx.capture(seeded(Net), (X,))
    (relu,) = [node for node in graph.graph.nodes if "relu" in node.name]
    relu.replace_all_uses_with(relu.args[0])
    graph.graph.erase_node(relu)
    return graph


def test_another_graph_is_shown_line_by_line(other: torch.fx.GraphModule, stored: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        GraphSnapshot(stored, "test_net")(other)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"the graph differs from {stored / 'test_net.dot'}:"
    assert any(line.startswith('-  "relu"') for line in lines)
    assert not any(line.startswith('-  "last/linear"') for line in lines)
    assert lines[-2:] == [
        "pytest --render-graphs=FOLDER draws both graphs",
        "pytest --update-graphs stores the new graph",
    ]


@pytest.mark.parametrize("installed", [True, False])
def test_both_are_drawn(
    installed: bool,
    other: torch.fx.GraphModule,
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dot(kind: str, text: str, timeout: float) -> bytes:
        if not installed:
            raise FileNotFoundError("dot")
        return b"<svg/>"

    monkeypatch.setattr(render, "_dot", dot)
    with pytest.raises(AssertionError) as caught:
        GraphSnapshot(stored, "test_net", render=tmp_path / "drawn")(other)
    ending = "" if installed else ".dot"
    for which in ("expected", "actual"):
        drawn = tmp_path / "drawn" / f"test_net-{which}.svg{ending}"
        assert f"{which}: {drawn}" in str(caught.value)
        assert drawn.read_text().startswith("<svg" if installed else "digraph")


def test_nothing_is_stored_without_being_asked(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="run pytest --update-graphs"):
        GraphSnapshot(tmp_path, "test_net")(graph)
    assert not list(tmp_path.iterdir())


def test_each_graph_of_each_test_has_a_file(graph: torch.fx.GraphModule, tmp_path: Path) -> None:
    parameters = ("a/b", "a b", "a", "a-qdq", "a+qdq", "-a", "[a", "a]", 300 * "a")
    for test in (f"test_x[{each}]" for each in parameters):
        snapshot = GraphSnapshot(tmp_path, test, update=True)
        snapshot(graph)
        snapshot(graph, "qdq")
        with refused("taken-name", ArgumentError, site="qdq"):
            snapshot(graph, "qdq")
    assert len(list(tmp_path.iterdir())) == 2 * len(parameters)
    assert (tmp_path / "test_x-a+qdq.dot").exists()


def test_no_warning_reaches_a_users_test(
    other: torch.fx.GraphModule,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    def absent(kind: str, text: str, timeout: float) -> bytes:
        raise FileNotFoundError("dot")

    monkeypatch.setattr(render, "_dot", absent)
    with pytest.raises(AssertionError):
        GraphSnapshot(stored, "test_net", render=stored / "drawn")(other)
    assert not [each for each in recwarn if issubclass(each.category, QuantfxWarning)]

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from quantfx.passes.draw.dot import to_dot
from quantfx.tools.drawing.draw import READABLE_NODES, draw
from quantfx.tools.drawing.render import render
from tests.drawing_samples import SAMPLES, Einsum, capture, chain, drawn_nodes
from tests.refusals import refused, warned

TEXT = 'digraph {\n  "a" -> "b"\n}\n'


def assert_renders(text: str, path: Path) -> None:
    """``dot`` draws the text; where it is not installed, the text is kept and the user told."""
    if shutil.which("dot"):
        assert render(text, path) == path
        assert b"</svg>" in path.read_bytes()
        return
    with warned("missing-program", site="dot"):
        assert render(text, path).read_text(encoding="utf-8") == text


def fake_dot(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script be the only program called ``dot``."""
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_render(sample: str, tmp_path: Path) -> None:
    assert_renders(to_dot(SAMPLES[sample]()), tmp_path / "graph.svg")


def test_einsum_renders(tmp_path: Path) -> None:
    text = to_dot(capture(Einsum(), torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)))
    assert "<b>einsum</b> bij,bjk-&gt;bik" in text
    assert_renders(text, tmp_path / "graph.svg")


def test_dot_suffix_writes_the_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "graph.dot"
    assert render(TEXT, str(path)) == path
    assert path.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("name", ["graph.svg", "graph.png"])
def test_without_graphviz_the_text_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with warned("missing-program", site="dot") as caught:
        written = render(TEXT, tmp_path / name)
    assert written == tmp_path / f"{name}.dot"
    assert str(written) in str(caught[0].message)
    assert written.read_text(encoding="utf-8") == TEXT
    assert not (tmp_path / name).exists()


def test_bitmap_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dot(tmp_path, monkeypatch, "echo graph 1 2.5 400")
    with refused("drawing-size", says="288 x.*38448 pixels"):
        render(TEXT, tmp_path / "graph.png")
    assert not (tmp_path / "graph.png").exists()
    assert render(TEXT, tmp_path / "graph.svg").exists()


def test_bitmap_that_fits_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, monkeypatch, "echo graph 1 2.5 4")
    assert render(TEXT, tmp_path / "graph.png").read_bytes() == b"graph 1 2.5 4\n"


def test_failure_of_dot_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, monkeypatch, "echo syntax error in line 1 >&2; exit 1")
    with refused("drawing-text", says="line 1"):
        render("digraph {", tmp_path / "graph.svg")


def test_dot_is_stopped_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dot(tmp_path, monkeypatch, "exec /bin/sleep 60")
    with refused("drawing-size", says=r"0\.2 s"):
        render(TEXT, tmp_path / "graph.svg", timeout=0.2)


def test_unknown_format_is_an_error(tmp_path: Path) -> None:
    with refused("file-ending"):
        render(TEXT, tmp_path / "graph.pdf")


@pytest.mark.parametrize("modules", [1, 50])
def test_draw_collapses_what_is_too_large_to_read(modules: int, tmp_path: Path) -> None:
    module = chain(2 * READABLE_NODES, modules)
    collapsed = draw(module, tmp_path / "graph.dot").read_text(encoding="utf-8")
    assert len(drawn_nodes(collapsed)) <= READABLE_NODES
    asked = draw(module, tmp_path / "all.dot", depth=9).read_text(encoding="utf-8")
    assert asked == to_dot(module)


def test_draw_shows_small_graphs_whole(tmp_path: Path) -> None:
    module = SAMPLES["quantized"]()
    assert draw(module, tmp_path / "a.dot").read_text(encoding="utf-8") == to_dot(module)
    near = draw(module, tmp_path / "b.dot", around="layer.0/add").read_text(encoding="utf-8")
    assert near == to_dot(module, around="layer.0/add")

"""The commands that ask a saved model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.sample import run

pytestmark = pytest.mark.usefixtures("folder")


def test_report(folder: Path) -> None:
    ended = run("report", "net.quantfx", "--full", "--json", "new/report.json")
    assert ended.exit_code == 0, ended.output
    assert "passes (ms)" in ended.stdout
    assert json.loads((folder / "new" / "report.json").read_text())["rows"]


def test_of_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    written = run("quantize", "own_cli:net", "-o", "any.quantfx", "--target", "any")
    assert written.exit_code == 0, written.output
    for looked in (("report",), ("explain", "conv"), ("draw", "-o", "any.dot")):
        ended = run(looked[0], "any.quantfx", *looked[1:])
        assert (ended.exit_code, bool(ended.stdout)) == (0, True), looked
        assert "quantfx: warning: 2 site(s) would saturate" in ended.stderr


def test_explain(folder: Path) -> None:
    ended = run("explain", "net.quantfx", "conv", "--json", "conv.json")
    assert ended.exit_code == 0, ended.output
    assert "int8 by template conv2d" in ended.stdout
    (site,) = json.loads((folder / "conv.json").read_text())["sites"]
    assert site["module"] == "conv"


def test_explain_of_an_unknown_name() -> None:
    ended = run("explain", "net.quantfx", "covn")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "did you mean 'conv'" in ended.stderr


def test_compare(folder: Path) -> None:
    ended = run(
        "compare", "net.quantfx", "--model", "net.pt2", "--data", "images.npz", "--rows", "4",
        "--json", "figures.json", "--draw", "heat.dot",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    assert "conv2d" in ended.stdout
    figures = json.loads((folder / "figures.json").read_text())
    assert (figures["calls"], len(figures["sites"])) == (2, 2)
    assert all(site["own"]["sqnr"] > 20 for site in figures["sites"])
    assert "fillcolor" in (folder / "heat.dot").read_text()


def test_sensitivity(folder: Path) -> None:
    ended = run(
        "sensitivity", "net.quantfx", "--model", "net.pt2", "--data", "images.npz", "--rows", "4",
        "--evaluate", "1", "--whole", "--json", "costs.json", "--chart", "costs.svg",
        "--draw", "costs.dot",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    assert "conv2d" in ended.stdout
    figures = json.loads((folder / "costs.json").read_text())
    assert figures["calls"] == 2
    assert all(site["cost"] > 0 for site in figures["sites"])
    assert figures["evaluation"]["rounded"] > 20
    assert (folder / "costs.svg").read_text().startswith("<svg")
    assert "fillcolor" in (folder / "costs.dot").read_text()
    ended = run("sensitivity", "net.quantfx", "--model", "net.pt2")
    assert ended.exit_code == 2


def test_pages_for_a_browser(folder: Path) -> None:
    ended = run("report", "net.quantfx", "--html", "new/net.html")
    assert ended.exit_code == 0, ended.output
    data = ("--model", "net.pt2", "--data", "images.npz")
    assert run("compare", "net.quantfx", *data, "--html", "heat.html").exit_code == 0
    plain, hot = ((folder / name).read_text() for name in ("new/net.html", "heat.html"))
    assert plain.startswith("<!doctype html>")
    assert len(hot) > len(plain)


def test_diff_of_equal_models_and_of_others(folder: Path) -> None:
    same = run("diff", "net.quantfx", "net.quantfx")
    assert same.exit_code == 0, same.output
    dynamic = ("--config", "dynamic", "-o", "dynamic.quantfx", "--target", "avx2")
    assert run("quantize", "net.pt2", *dynamic).exit_code == 0
    ended = run("diff", "net.quantfx", "dynamic.quantfx", "--json", "d.json", "--draw", "d.dot")
    assert ended.exit_code == 1, ended.output
    assert "quantize_per_tensor" in ended.stdout or "scale" in ended.stdout
    assert json.loads((folder / "d.json").read_text())["rows"]
    assert (folder / "d.dot").read_text().startswith("digraph")


def test_compare_needs_data() -> None:
    ended = run("compare", "net.quantfx", "--model", "net.pt2")
    assert ended.exit_code == 2
    assert "--data DATA is needed" in ended.stderr


@pytest.mark.parametrize(("graph", "holds"), [("qdq", "conv2d"), ("lowered", "qconv_pointwise")])
def test_draw(graph: str, holds: str, folder: Path) -> None:
    ended = run("draw", "net.quantfx", "-o", "new/net.dot", "--graph", graph, "--depth", "3")
    assert ended.exit_code == 0, ended.output
    assert "drawn to new/net.dot" in ended.stdout
    assert holds in (folder / "new" / "net.dot").read_text()


def test_draw_near_a_name(folder: Path) -> None:
    assert run("draw", "net.quantfx", "-o", "fc.dot", "--around", "fc").exit_code == 0
    assert run("draw", "net.quantfx", "-o", "x.dot", "--around", "fcc").exit_code == 1
    assert run("draw", "net.quantfx", "-o", "x.bmp").exit_code == 1

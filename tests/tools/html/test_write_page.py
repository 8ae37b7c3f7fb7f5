from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import quantfx
from quantfx.tools.html.write_page import script_text
from quantfx.tools.models.resnet import resnet50
from tests.tools.html.pages import HOSTILE, Net, X, quantized


class Reader(HTMLParser):
    """Reads a page as a browser does: a script ends at the first ``</script``."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    each = quantized()
    path = tmp_path_factory.mktemp("page") / "inner" / "page.html"
    assert each.result.html(path, each.comparison, stages=each.stages, title=HOSTILE) == path
    return path


def test_nothing_is_fetched(page: Path) -> None:
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"link", "img", "iframe", "object", "base"}
    assert not [given for _, given in reader.tags if {"src", "href", "onerror"} & set(given)]
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"'`\s]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "sourceMappingURL" not in text
    (policy,) = [g["content"] for _, g in reader.tags if g.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_names_of_a_model_stay_text(page: Path) -> None:
    reader = read(page)
    assert [tag for tag, _ in reader.tags].count("script") == 3
    data = json.loads(next(text for tag, text in reader.texts if text.startswith('{"title"')))
    assert data["title"] == HOSTILE
    assert any(HOSTILE in site.get("module", "") for site in data["sites"])
    assert next(text for tag, text in reader.texts if tag == "title") == HOSTILE
    assert script_text({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'


def test_the_licence_is_in_the_page(page: Path) -> None:
    assert "Copyright (c) 2012-2014 Chris Pettitt" in page.read_text(encoding="utf-8")


def test_equal_results_give_equal_bytes(page: Path, tmp_path: Path) -> None:
    each = quantized()
    same = each.result.html(tmp_path / "a.html", each.comparison, stages=each.stages, title=HOSTILE)
    assert same.read_bytes() == page.read_bytes()
    again = quantfx.quantize(Net().eval(), X, calibration=[X])
    first = each.result.html(tmp_path / "b" / "x.html")
    assert again.html(tmp_path / "c" / "x.html").read_bytes() == first.read_bytes()


def test_a_loaded_result_has_a_page(tmp_path: Path) -> None:
    result = quantfx.quantize(Net("second").eval(), X, calibration=[X])
    result.save(tmp_path / "net.quantfx")
    path = quantfx.load(tmp_path / "net.quantfx").html(tmp_path / "net.html")
    assert next(text for tag, text in read(path).texts if tag == "title") == "net"


def test_graphs_without_a_result(tmp_path: Path) -> None:
    path = quantfx.html(quantized().stages, tmp_path / "graphs.html")
    assert '"name":"captured"' in path.read_text(encoding="utf-8")
    one = quantfx.html(quantized().result.quantized, tmp_path / "graph.html", title="one")
    assert '"title":"one"' in one.read_text(encoding="utf-8")


@pytest.mark.sweep
def test_the_page_of_resnet50_is_small(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    result = quantfx.quantize(resnet50(), x, calibration=[x], compare=False)
    size = result.html(tmp_path / "resnet50.html").stat().st_size
    assert 200_000 < size < 1_000_000

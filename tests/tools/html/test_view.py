from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quantfx
from quantfx.backends.direct.runtime.library import missing
from tests.tools.html.browser import PROGRAM, Browser, browser
from tests.tools.html.pages import HOSTILE, Branches, X, quantized

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium here: apt-get install --no-install-recommends chromium"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    each = quantized()
    target = tmp_path_factory.mktemp("view") / "page.html"
    return each.result.html(target, each.comparison, stages=each.stages, title="A page")


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    with browser() as each:
        yield each


@pytest.fixture
def page(started: Browser, path: Path) -> Iterator[Browser]:
    started.errors.clear()
    started.requests.clear()
    started.open(path)
    yield started
    assert started.errors == []
    assert set(started.requests) == {path.as_uri()}, "nothing but the file is asked for"


def shown(page: Browser, selector: str) -> str:
    return str(page.run(f"document.querySelector({selector!r}).innerText"))


def names(page: Browser) -> list[str]:
    return list(
        page.run("[...document.querySelectorAll('#graph g.item')].map(n => n.dataset.name)")
    )


def test_the_page_opens_with_the_report(page: Browser) -> None:
    text = shown(page, "#overview")
    assert "Arithmetic in int8" in text
    assert "What is not int8, and why" in text
    assert "erf" in text
    assert "Where accuracy is lost" in text
    assert "dB" in text
    assert page.run("document.title") == "A page"
    assert page.run("document.images.length") == 0, "no name became markup"


def test_a_module_opens_and_closes(page: Browser) -> None:
    page.click("[data-tab=graph]")
    page.run("document.querySelector('#graph .toolbar button:nth-of-type(2)').click()")
    closed = names(page)
    assert {"block", HOSTILE} <= set(closed)
    assert "block.conv1/conv2d" not in closed
    page.click("#graph g.item[data-name=block]")
    opened = names(page)
    assert "block.conv1/conv2d" in opened
    assert "block" not in opened
    page.click("#graph g.group text")
    assert names(page) == closed


def test_a_click_on_a_node_explains_it(page: Browser) -> None:
    page.click("[data-tab=graph]")
    assert page.run("document.getElementById('details').hidden")
    page.click("#graph g.item[data-name='stem/conv2d']")
    text = shown(page, "#details")
    (told,) = quantized().result.explain("stem").sites[:1]
    assert told.verdict in text
    for word in ("Quantized tensors", "scale", "Templates tried", "SQNR", "stem (Conv2d)"):
        assert word.lower() in text.lower()
    page.press("Escape")
    assert page.run("document.getElementById('details').hidden")


def test_search_finds_by_name_operator_and_reason(page: Browser) -> None:
    page.press("/")
    assert page.run("document.activeElement.id") == "search"
    page.type("no template takes it")
    assert "erf" in shown(page, "#hits")
    page.run("document.getElementById('search').value = ''")
    page.type("block.conv2")
    page.press("Enter")
    assert page.run("state.tab") == "graph"
    assert "block.conv2" in shown(page, "#details")
    assert "block.conv2/conv2d" in names(page), "the module around it was opened"
    assert page.run("document.querySelectorAll('#graph g.item.selected').length") == 1


@pytest.mark.parametrize("kernels", ["onednn", "direct"])
def test_a_click_on_every_branch_and_region_opens_it(
    kernels: str, started: Browser, tmp_path: Path
) -> None:
    if kernels == "direct" and missing():
        pytest.skip(missing())
    backend = quantfx.backends.get("x86", kernels=kernels)
    result = quantfx.quantize(Branches().eval(), X, calibration=[X], backend=backend, strict=False)
    started.errors.clear()
    started.open(result.html(tmp_path / "branches.html"))
    boxes = started.run("KEPT.flatMap(s => s.boxes.map(b => [s.name, b.path, b.kind]))")
    wanted = {"direct": "one call of a prepared plan", "onednn": "nested graph"}
    assert wanted[kernels] in {kind for _, _, kind in boxes}, boxes
    for stage, box, _ in boxes:
        started.run(f"openTab('graph'); chooseStage({stage!r}); setOpen(false); reveal({box!r})")
        started.click(f"#graph g.module[data-name='{box}']")
        assert started.run(f"state.open.has({box!r})"), (stage, box)
        assert box in shown(started, "#details h2")
        assert started.run("document.querySelectorAll('#details li').length") > 0
    assert started.errors == []


def test_search_finds_nodes_of_a_page_of_graphs_alone(started: Browser, tmp_path: Path) -> None:
    started.errors.clear()
    started.open(quantfx.html(quantized().stages, tmp_path / "graphs.html"))
    started.press("/")
    started.type("erf")
    started.press("Enter")
    assert started.run("document.querySelectorAll('#graph g.item.selected').length") == 1
    assert "No explanation is kept" in shown(started, "#details")
    started.press("/")
    started.type("block.conv2/conv2d")
    started.press("Enter")
    assert "block.conv2/conv2d" in names(started), "the module around it was opened"
    assert started.errors == []


def test_a_vanished_name_is_found(page: Browser) -> None:
    page.press("/")
    page.type("block.norm")
    page.press("Enter")
    assert "fold-batch-norm" in shown(page, "#details")


def test_the_keyboard_walks_and_opens(page: Browser) -> None:
    page.click("[data-tab=graph]")
    page.run("views.graph.svg.focus()")
    page.press("ArrowDown")
    first = page.run("document.activeElement.dataset.name")
    page.press("ArrowDown")
    second = page.run("document.activeElement.dataset.name")
    assert first
    assert second
    assert first != second
    page.press("Enter")
    assert not page.run("document.getElementById('details').hidden")


def test_the_list_sorts(page: Browser) -> None:
    page.click("[data-tab=list]")
    read = "[...document.querySelectorAll('#list tbody tr')].map(r => r.children[3].innerText)"
    page.run("document.querySelectorAll('#list th button')[3].click()")
    rising = [float(text.split()[0]) for text in page.run(read) if text]
    assert rising == sorted(rising)
    assert len(rising) == len(quantized().comparison.sites)
    page.run("document.querySelectorAll('#list th button')[3].click()")
    assert [float(text.split()[0]) for text in page.run(read) if text] == rising[::-1]


def test_stages_stand_side_by_side(page: Browser) -> None:
    page.click("[data-tab=stages]")
    text = shown(page, "#stages")
    for name in ("captured", "prepared", "q/dq", "lowered"):
        assert name in text
    assert "A result does not keep this graph" in text
    assert page.run("document.querySelectorAll('#stages svg').length") == 3


def test_heat_colours_the_graph(page: Browser) -> None:
    page.click("[data-tab=graph]")
    page.run(
        "(() => { const c = document.getElementById('colour'); c.value = 'own';"
        " c.dispatchEvent(new Event('change')); })()"
    )
    assert page.run("document.querySelectorAll('#graph g.item:is(.heat-3, .heat-4)').length") > 0
    assert "not measured" in shown(page, "#graph .legend")


def test_zoom_and_pan_move_the_graph(page: Browser) -> None:
    page.click("[data-tab=graph]")
    where = "document.querySelector('#graph svg > g').getAttribute('transform')"
    before = page.run(where)
    at = {"x": 300, "y": 400}
    page.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-300, **at)
    page.wait(f"{where} !== {before!r}")
    zoomed = page.run(where)
    page.call("Input.dispatchMouseEvent", type="mousePressed", button="left", **at)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, x=380, y=430)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", x=380, y=430)
    page.wait(f"{where} !== {zoomed!r}")


def test_dark_follows_the_system_and_a_switch(started: Browser, path: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    started.open(path, dark=True)
    dark = started.run(paper)
    started.open(path)
    assert started.run(paper) == "rgb(255, 255, 255)" != dark
    started.click("#theme")
    assert started.run(paper) == dark


def test_a_phone_reads_it_without_sideways_scrolling(started: Browser, path: Path) -> None:
    started.open(path, width=400, height=800)
    for tab in ("overview", "graph", "stages", "list"):
        started.run(f"openTab({tab!r})")
        assert started.run("document.documentElement.scrollWidth") <= 400, tab

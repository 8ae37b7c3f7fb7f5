"""Every line of quantfx in MIGRATION.md runs: its `python run` blocks, and the tables' right columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

import quantfx
from quantfx import Config
from quantfx.backends import Backend
from quantfx.backends.x86 import x86
from quantfx.passes.report.contract import planned_matches
from quantfx.tools.models.seeded import seeded
from tests.docs.network import Network

PAGE = (Path(__file__).parent.parent / "MIGRATION.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A row whose second and last cell is one code span.
ROW = re.compile(r"^\| (?P<old>[^|]+) \| `(?P<new>[^|`]+)` \|$", re.MULTILINE)

BLOCKS = BLOCK.findall(PAGE)
ROWS = list(dict.fromkeys(match["new"] for match in ROW.finditer(PAGE)))


BATCHES = list(torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def captured() -> GraphModule:
    """The graph of the page's model, which `prepare` does not change."""
    return quantfx.capture(seeded(Network), (BATCHES[0],))


@pytest.fixture
def names() -> dict[str, Any]:
    """What the page says it assumes."""
    batches = [batch.clone() for batch in BATCHES]
    return {
        "torch": torch,
        "quantfx": quantfx,
        "Config": Config,
        "model": seeded(Network),
        "example": batches[0],
        "batches": batches,
        "loader": [(batch, torch.zeros(2)) for batch in batches],
    }


def test_nothing_of_the_page_escapes() -> None:
    """A block or row that is written a little differently would not be run."""
    fences = re.findall(r"^```(.*)$", PAGE, re.MULTILINE)
    assert set(fences) == {"", "python", "python run"}
    assert fences.count("python run") == len(BLOCKS) == 12
    for match in re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        assert "quantfx" not in match[1], "only old lines are not run"
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and "---" not in line]
    headings = sum(line.endswith("| quantfx |") for line in rows)
    prose = [line for line in rows if "npu.py" in line]
    assert len(list(ROW.finditer(PAGE))) == len(rows) - headings - len(prose)


def test_every_block_runs(
    names: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # one block saves a file
    monkeypatch.setenv("QUANTFX_KERNELS", "auto")  # as users have it, and without Inductor
    before = {name: tensor.clone() for name, tensor in names["model"].state_dict().items()}
    kept: list[Any] = []
    for block in BLOCKS:
        exec(compile(block, "MIGRATION.md", "exec"), names)
        kept += [names.get("converted"), names.get("quantized"), names.get("int8")]
    assert "conv2d" in capsys.readouterr().out
    with torch.no_grad():
        exact = names["model"](names["example"])
        for each in filter(None, kept):
            error = (each(names["example"]) - exact).abs().max() / exact.abs().max()
            assert 0 < float(error) < 0.1
    assert names["result"].report.lowered == names["result"].report.planned
    after = names["model"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("line", ROWS)
def test_every_right_column_means_something_for_the_model(
    line: str, names: dict[str, Any], captured: GraphModule
) -> None:
    """Configs in a backend select something, strictly; backends prepare."""
    value = eval(line, names)
    if isinstance(value, str):
        value = Config.from_json(value)
    backend = x86().with_config(value) if isinstance(value, Config) else value
    assert isinstance(backend, Backend)
    assert planned_matches(backend.prepare(captured))

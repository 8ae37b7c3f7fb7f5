"""What an older, a tested and a newer torch mean, whatever torch runs this."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import quantfx
from quantfx.patterns import torch_version
from quantfx.patterns.errors import QuantfxWarning
from quantfx.patterns.torch_version import TESTED, release, require_torch, warn_of_untested
from tests.refusals import refused

ROOT = Path(__file__).parents[2]
MODEL, X = nn.Linear(4, 4).eval(), torch.ones(2, 4)
NEWER = "2.99.0.dev20270101+cpu"


@pytest.fixture(autouse=True)
def _warns_anew() -> Iterator[None]:
    warn_of_untested.cache_clear()
    yield
    warn_of_untested.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(torch, "__version__", version)


@pytest.mark.parametrize("version", [*TESTED, "2.13.1+cpu", "2.15.0a0+git1234"])
def test_tested_versions_say_nothing(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, version)
    assert torch_version.is_tested()
    require_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_untested()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "linear.quantfx"
    quantfx.quantize(MODEL, (X,), calibration=[X]).save(path)
    return path


def first_uses(file: Path) -> dict[str, Callable[[], object]]:
    return {
        "capture": lambda: quantfx.capture(MODEL, (X,)),
        "quantize": lambda: quantfx.quantize(MODEL, (X,), calibration=[X]),
        "auto": lambda: quantfx.auto(MODEL),
        "load": lambda: quantfx.load(file),
        "torch.compile": lambda: torch.compile(MODEL, backend="quantfx_x86")(X),
    }


@pytest.mark.parametrize("use", ["capture", "quantize", "auto", "load", "torch.compile"])
def test_a_newer_one_warns_at_the_first_use_only(
    monkeypatch: pytest.MonkeyPatch, file: Path, use: str
) -> None:
    run = first_uses(file)[use]
    torch.compiler.reset()
    warn_of_untested.cache_clear()
    pretend(monkeypatch, NEWER)
    assert not torch_version.is_tested()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
        run()
        quantfx.capture(MODEL, (X,))
    torch.compiler.reset()
    ours = [each.message for each in caught if isinstance(each.message, QuantfxWarning)]
    [warning] = [each for each in ours if each.rule == "torch-version"]
    assert warning.site == NEWER
    assert f"({', '.join(TESTED)})" in str(warning)


def test_an_older_one_is_refused_when_quantfx_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import torch; torch.__version__ = '2.12.1+cpu'; import quantfx"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 1
    assert f"torch 2.12.1+cpu is too old: quantfx needs torch {TESTED[0]} or newer" in ran.stderr
    pretend(monkeypatch, "1.13.1")
    with refused("torch-version", site="1.13.1", fix=f"pip install torch=={TESTED[-1]}"):
        require_torch()


def test_what_is_installed_and_what_make_runs_are_these_versions() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"torch>={'.'.join(map(str, release(TESTED[0])))}" in settings["project"]["dependencies"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch=={TESTED[0]}" in constraints
    planned = subprocess.run(
        ["make", "--dry-run", "matrix"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert set(re.findall(r"torch==([\d.]+)", planned)) == set(TESTED)


def test_the_readme_names_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"torch {', '.join(TESTED[:-1])} and {TESTED[-1]}" in text

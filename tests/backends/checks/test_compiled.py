"""Libraries are compiled once, however many ask for them at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quantfx.backends.checks.compiled import compiled

# Takes a while, notes each call and writes the file behind -o.
COMPILER = """
[ "$1" = --version ] && echo 1 && exit
echo called >> {log}
sleep 0.3
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QUANTFX_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "compiler.sh"
    script.write_text(COMPILER.format(log=tmp_path / "log"))
    return f"sh {script}"


def test_who_comes_later_waits_and_finds_it(tmp_path: Path, compiler: str) -> None:
    source = tmp_path / "source.cpp"
    source.write_text("int one() { return 1; }")
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: compiled("some", compiler, [source]), range(4)))
    (path,) = paths
    assert path.read_text() == "library\n"
    assert (tmp_path / "log").read_text() == "called\n"
    source.write_text("int one() { return 2; }")
    assert compiled("some", compiler, [source]) != path
    assert (tmp_path / "log").read_text() == "called\n" * 2

"""The runtime without torch and Python, under sanitizers: as backends/direct/README.md says."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from quantfx.backends.direct.runtime.library import runtime

HERE = Path(__file__).parent
CORE = HERE.parents[3] / "backends" / "direct" / "runtime" / "core"


@pytest.mark.sweep
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    found = runtime()
    assert found.onednn is not None
    program = tmp_path / "check"
    flags = [
        "-std=c++17",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
        "-fopenmp",
    ]
    sources = [*CORE.glob("*.cpp"), HERE / "core_check.cpp"]
    library = found.onednn.library
    command = [*shlex.split(found.compiler), *flags, f"-I{found.onednn.headers}", f"-I{CORE}"]
    command += [*map(str, sources), "-o", str(program), str(library)]
    subprocess.run([*command, f"-Wl,-rpath,{library.parent}"], check=True)
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    ran = subprocess.run([program, "2500"], capture_output=True, text=True, env=threads)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "equal\n", "")

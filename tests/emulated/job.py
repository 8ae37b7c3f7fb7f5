"""The disk of one run: the repository, kernels compiled for the emulated CPU, and what to do."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quantfx.backends.checks.compiled import FLAGS
from tests.emulated.root import make_disk

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
# Bochs's name of a CPU -> g++'s, which is what -march=native means there.
MODELS = {"tigerlake": "tigerlake", "sapphire_rapids": "sapphirerapids", "arrow_lake": "alderlake"}


def build_job(folder: Path, model: str, arguments: Sequence[str]) -> Path:
    """Return a disk image of a run of pytest on a CPU model.

    Args:
        folder: Where the image goes.
        model: A key of ``MODELS``.
        arguments: What pytest gets.
    """
    stage = folder / f"job-{model}"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "made").mkdir(parents=True)
    _copy_repository(stage / "repository")
    _compile(stage / "made", model)
    shutil.copy2(_HERE / "guest/compiler", stage)
    (stage / "compiler").chmod(0o755)
    march = MODELS[model]
    subprocess.run(
        ["g++", "-O1", "-static", f"-march={march}", _HERE / "guest/cpu.cpp", "-o", stage / "cpu"],
        check=True,
    )
    script = (_HERE / "guest/run.sh").read_text()
    for name, value in (
        ("@REPOSITORY@", shlex.quote(str(_REPOSITORY))),
        ("@PYTHON@", shlex.quote(sys.executable)),
        ("@ENVIRONMENT@", shlex.quote(sys.prefix)),
        ("@ARGUMENTS@", shlex.join(arguments)),
    ):
        script = script.replace(name, value)
    (stage / "run.sh").write_text(script)
    image = folder / f"job-{model}.img"
    make_disk(stage, image, spare=300)
    return image


def _copy_repository(target: Path) -> None:
    """Copy what git would commit, with bytecode: to compile it takes minutes there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (_REPOSITORY / name).exists():
            shutil.copy2(_REPOSITORY / name, path, follow_symlinks=False)
    moved = ["-s", str(target), "-p", str(_REPOSITORY)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *moved, target], check=False)


def _compile(target: Path, model: str) -> None:
    """Compile quantfx's C++ here, as it would compile itself there."""
    flags = [f"-march={MODELS[model]}" if each == "-march=native" else each for each in FLAGS]
    environment = Path(sys.prefix)
    library = environment / "lib/libdnnl.so.3"
    links = [str(library), f"-Wl,-rpath,{library.parent}"]
    for name, more in (
        ("weight_only", []),
        ("recurrent", []),
        ("direct", [f"-I{environment / 'include'}", *links]),
    ):
        sources = sorted((_REPOSITORY / "backends" / name).rglob("core/*.cpp"))
        made = target / f"{name}.so"
        command = ["g++", *flags, *map(str, sources), "-o", str(made), *more]
        subprocess.run(command, check=True)

"""``make release-check``: what the wheel and the sdist hold, and the quick start with the wheel alone.

python -m tests.release.check_dist dist
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from tests.docs.pages import ROOT, blocks_of

# Folders of the wheel -> where they are in the tree, where that is another name.
_LINKED = ("passes", "patterns", "backends", "tools")
_IN_SDIST = ("README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt", "mkdocs.yml")


def expected_in_wheel() -> set[str]:
    """Return the files of every package, and what its settings say it has beside code."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setup = settings["tool"]["setuptools"]
    names = {"pytest_quantfx.py"}
    for package in setup["packages"]:
        inside = package.replace(".", "/")
        folder = ROOT / inside
        patterns = ["*.py", *setup["package-data"].get(package, [])]
        found = [file for each in patterns for file in folder.glob(each) if file.is_file()]
        names |= {f"{inside}/{file.relative_to(folder)}" for file in found}
    return names


def check_wheel(wheel: Path) -> None:
    """Hold the names in a wheel against the tree."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        held = archive.namelist()
    expected = expected_in_wheel()
    problems = [f"lacks {name}" for name in sorted(expected - names)]
    problems += [f"has {name}, which no package lists" for name in sorted(names - expected)]
    for name in ("LICENSE", "dagre.LICENSE", "METADATA", "entry_points.txt"):
        if not any(each.endswith(f"/{name}") for each in held):
            problems.append(f"lacks {name}")
    _stop(wheel, problems)


def check_sdist(sdist: Path) -> None:
    """Look for what it takes to read, test and build."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    problems = [f"lacks {name}" for name in _IN_SDIST if name not in names]
    for name in expected_in_wheel():
        inner = name.removeprefix("quantfx/")
        place = inner if inner.startswith(tuple(f"{each}/" for each in _LINKED)) else name
        if place not in names:
            problems.append(f"lacks {place}")
    _stop(sdist, problems)


def check_quick_start(wheel: Path) -> None:
    """Install the wheel into a new environment elsewhere, and run the blocks of the quick start."""
    page = ROOT / "docs" / "quickstart.md"
    code = "\n".join(block.code for block in blocks_of(page.read_text(encoding="utf-8")))
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        install = ("-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"))
        subprocess.run([python, *install, str(wheel)], check=True, cwd=folder, env=clean)
        (folder / "quick_start.py").write_text(code, encoding="utf-8")
        for command in (
            (python, "quick_start.py"),
            (str(Path(python).parent / "quantfx"), "--version"),
        ):
            done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
            print(done.stdout)
            _stop(wheel, [done.stderr] if done.returncode else [])
        where = [python, "-c", "import quantfx; print(quantfx.__file__)"]
        found = subprocess.run(where, cwd=folder, env=clean, capture_output=True, text=True).stdout
        _stop(wheel, [] if str(folder) in found else [f"another one was imported: {found}"])


def _stop(file: Path, problems: list[str]) -> None:
    if problems:
        raise SystemExit("\n".join(f"{file.name} {problem}" for problem in problems))


def main(folder: Path) -> None:
    """Check the one wheel and the one sdist of a folder."""
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    check_quick_start(wheel.resolve())
    print(f"{wheel.name} and {sdist.name} are as they should be")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

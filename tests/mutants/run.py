"""Put each bug of ``mutants.toml`` into a copy of the tree, and see whether the fuzzer finds it.

``python tests/mutants/run.py`` writes a line for each to the terminal, and all to ``--table``; with
``--outcomes FILE`` it goes on where it was stopped. Each mutant runs in a fork of a process that has
imported torch, and nothing of ours.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COPIED = ("quantfx", "passes", "patterns", "backends", "tools")
TIMEOUT = 300  # seconds
SEEDS, TRIES = 400, 60  # programs that are drawn, and how many of them are tried on a mutant
ALL_HOLD = "all hold"
_FAULT = re.compile(r"seed (\d+): ([^:]+): ")


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        file: Where, from the root.
        old: What stands there, once.
        new: What is put in its place.
        breaks: What does not hold any more.
        near: Of programs that are likely to show it, and are tried first: a regular expression.
    """

    file: str
    old: str
    new: str
    breaks: str
    near: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        breaks: What the mutant breaks.
        file: Where it is.
        by: What caught it; empty if nothing did.
        seed: The first that does.
        seconds: How long it took.
    """

    breaks: str
    file: str
    by: str
    seed: int | None
    seconds: float

    def __str__(self) -> str:
        found = f"{self.by}, seed {self.seed}" if self.by else "SURVIVED"
        return f"| {self.breaks} | `{self.file}` | {found} |"


def read_mutants() -> list[Mutant]:
    """Return the mutants of the table."""
    data = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(**each) for each in data["mutant"]]


def stale(mutants: list[Mutant]) -> list[str]:
    """Return which mutants do not fit the tree as it is: their text must be in their file once."""
    found: list[str] = []
    for each in mutants:
        count = (ROOT / each.file).read_text(encoding="utf-8").count(each.old)
        if count != 1:
            found.append(f"'{each.breaks}': its text is {count} times in {each.file}")
    return found


def write_cases(path: Path, names: Path) -> None:
    """Draw the programs once for all mutants, from the tree as it is; name what is imported."""
    sys.path.insert(0, str(ROOT))
    run = importlib.import_module("quantfx.tools.fuzz.run")
    case = importlib.import_module("quantfx.tools.fuzz.case")
    turns = [backend for backend, _ in run.variants("x86")]
    drawn = [case.make_case(seed, turns[seed % len(turns)]) for seed in range(SEEDS)]
    path.write_bytes(pickle.dumps(drawn))
    check = importlib.import_module("quantfx.tools.fuzz.check")
    check.check(drawn[0], turns[0], saves=False)
    torch = [name for name in sys.modules if re.match(r"(torch|sympy|numpy)(\.|$)", name)]
    names.write_text("\n".join(torch), encoding="utf-8")


def warm(names: Path) -> None:
    """Import what the fuzzer imports that is not ours, so that forks need not."""
    for name in names.read_text(encoding="utf-8").split():
        with contextlib.suppress(ImportError):  # not all names are of files
            importlib.import_module(name)


def copy_tree(to: Path) -> None:
    """Copy the tree, with its bytecode: compiling it takes longer than what a mutant does."""
    for name in COPIED:
        shutil.copytree(ROOT / name, to / name, symlinks=True)
        compileall.compile_dir(to / name, quiet=2)


def examine(mutant: Mutant, base: Path, cases: Path) -> Outcome:
    """Run the fuzzer on a copy of the tree ``base`` with the bug in it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(base, tree, symlinks=True)
        file = tree / mutant.file
        file.write_text(file.read_text(encoding="utf-8").replace(mutant.old, mutant.new))
        found = _caught(*_output(tree, cases, mutant.near))
    return Outcome(mutant.breaks, mutant.file, *found, time.monotonic() - start)


def require_sound(tree: Path, cases: Path) -> None:
    """Refuse a tree in which the fuzzer finds something without any mutant."""
    by, seed = _caught(*_output(tree, cases, ""))
    if by:
        raise SystemExit(f"the tree itself has a fault: {by}, seed {seed}")


def _output(tree: Path, cases: Path, near: str) -> tuple[str, bool]:
    """Return what the fuzzer says of a tree, and whether it came to an end."""
    output = tree / "output"
    in_time = _forked(_fuzz, tree, output, cases, near)
    return output.read_text(encoding="utf-8"), in_time


def _caught(output: str, in_time: bool) -> tuple[str, int | None]:
    """Return what caught a mutant, and the seed; nothing if all seeds passed."""
    fault = _FAULT.search(output)
    if fault:
        return fault[2], int(fault[1])
    if not in_time or output.endswith(ALL_HOLD):  # a machine under load is slow, too
        return "", None
    return f"exception ({(output.strip().splitlines() or [''])[-1][:60]})", None


def _forked(target: Callable[..., None], *args: object) -> bool:
    """Call ``target`` in a fork; return whether it came to an end."""
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        return False
    return True


def _fuzz(tree: Path, output: Path, cases: Path, near: str) -> None:
    """Run the fuzzer of a tree, in a process that has imported torch and nothing of ours."""
    to = os.open(output, os.O_CREAT | os.O_WRONLY)
    os.dup2(to, 1)
    os.dup2(to, 2)
    sys.path.insert(0, str(tree))
    sys.dont_write_bytecode = True
    run = importlib.import_module("quantfx.tools.fuzz.run")
    check = importlib.import_module("quantfx.tools.fuzz.check")
    assert Path(str(run.__file__)).is_relative_to(tree)
    turns = [backend for backend, _ in run.variants("x86")]
    drawn = pickle.loads(cases.read_bytes())
    for case in sorted(drawn, key=lambda each: not re.search(near, str(each)))[:TRIES]:
        faults = check.check(case, turns[case.seed % len(turns)], saves=False)
        if faults:
            print(faults[0], flush=True)
            return
    print(ALL_HOLD, end="", flush=True)


def _known(path: Path | None) -> list[Outcome]:
    """Return the outcomes of a run that was stopped."""
    if path is None or not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Outcome(**json.loads(line)) for line in lines]


def main() -> int:
    """Examine all mutants, or those whose description has a word; 1 if more than 5 % survive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of what a mutant breaks, or of its file")
    parser.add_argument("--table", type=Path, help="where to write the outcomes")
    parser.add_argument("--outcomes", type=Path, help="where to keep them; those there are kept")
    given = parser.parse_args()
    outcomes = _known(given.outcomes)
    known = {each.breaks for each in outcomes}
    mutants = read_mutants()
    if old := stale(mutants):
        raise SystemExit("\n".join(["stale:", *old]))
    chosen = [m for m in mutants if given.only in m.breaks or given.only in m.file]
    with tempfile.TemporaryDirectory() as folder:
        base, cases, names = (Path(folder) / name for name in ("base", "cases", "names"))
        copy_tree(base)
        _forked(write_cases, cases, names)
        warm(names)
        require_sound(base, cases)
        for mutant in (each for each in chosen if each.breaks not in known):
            outcomes.append(examine(mutant, base, cases))
            print(f"{outcomes[-1]} {outcomes[-1].seconds:.0f} s", flush=True)
            if given.outcomes:
                with given.outcomes.open("a", encoding="utf-8") as file:
                    print(json.dumps(asdict(outcomes[-1])), file=file)
    caught = sum(bool(each.by) for each in outcomes)
    summary = f"{caught} of {len(outcomes)} caught"
    print(summary)
    if given.table:
        given.table.write_text("\n".join([*map(str, outcomes), summary, ""]), encoding="utf-8")
    return int(caught < 0.95 * len(outcomes))


if __name__ == "__main__":
    raise SystemExit(main())

"""The program as a whole: what it prints, how it ends, and what it does not import."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import quantfx
from quantfx.cli.program import main, program
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from tests.cli.sample import run

ROOT = Path(__file__).parents[2]


def process(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program as a shell does."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Add a command ``act`` that does what the test gives."""

    def add(act: Callable[[], object]) -> None:
        known = {**program.commands, "act": click.Command("act", callback=act)}
        monkeypatch.setattr(program, "commands", known)

    return add


def test_every_command_has_examples_that_it_takes() -> None:
    for name, each in program.commands.items():
        help_text = run(name, "--help").stdout
        examples = re.findall(rf"^  quantfx ({name}.*)$", help_text, re.MULTILINE)
        assert examples, name
        for example in examples:
            words = [word.strip("'") for word in example.split()[1:]]
            each.make_context(name, words)  # raises a usage error where an option is unknown


def test_help_names_every_command() -> None:
    said = run("--help").stdout
    assert all(f"  {name} " in said for name in program.commands)
    assert "eval " in said
    assert "..." not in said.replace("[ARGS]...", ""), "a summary is cut off"


def test_version() -> None:
    said = run("--version").stdout
    assert said.startswith(f"quantfx {quantfx.__version__}, torch ")
    assert re.search(r"target (avx|amx)", said)


def test_an_error_is_a_sentence_and_the_status_1(
    command: Callable[[Callable[[], object]], None],
) -> None:
    def act() -> None:
        raise QuantfxError("it is so", rule="wrong-type", fix="write it")

    command(act)
    ended = run("act")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", "quantfx: it is so: write it\n")
    assert isinstance(run("--traceback", "act").exception, QuantfxError)


def test_an_unforeseen_error_says_where_to_look(
    command: Callable[[Callable[[], object]], None],
) -> None:
    command(lambda: 1 / 0)
    ended = run("act")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("quantfx: ZeroDivisionError: division by zero (`quantfx --trace")


def test_the_status_of_a_command_is_that_of_the_program(
    command: Callable[[Callable[[], object]], None],
) -> None:
    command(lambda: 1)
    assert main(["act"]) == 1
    command(lambda: None)
    assert main(["act"]) == 0
    assert main(["act", "--no-such-option"]) == 2
    assert main(["no-such-command"]) == 2


def test_ctrl_c_is_no_traceback(command: Callable[[Callable[[], object]], None]) -> None:
    command(lambda: signal.raise_signal(signal.SIGINT))
    # A shell may have told the tests' process, in the background, to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = run("act")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.exit_code, ended.stderr) == (130, "quantfx: stopped\n")


def test_warnings_are_sentences(command: Callable[[Callable[[], object]], None]) -> None:
    def act() -> None:
        warnings.warn(QuantfxWarning("it may be so", rule="wrong-type"), stacklevel=1)
        warnings.warn("of others", UserWarning, stacklevel=1)

    command(act)
    with pytest.warns(UserWarning, match="of others") as caught:
        ended = run("act")
    assert (ended.exit_code, ended.stderr) == (0, "quantfx: warning: it may be so\n")
    assert len(caught) == 1


# What a shell asks, once: the program is started as it is when installed.
STARTED = """
import json, sys
from quantfx.cli import main
status = main(["--help"])
heavy = ("torch._inductor", "torch._dynamo", "sympy", "networkx", "onnx", "torchao")
print(json.dumps([status, [name for name in heavy if name in sys.modules]]))
"""


def test_help_imports_neither_inductor_nor_dynamo() -> None:
    ended = process("-c", STARTED)
    assert json.loads(ended.stdout.splitlines()[-1]) == [0, []], ended.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = run("report", str(tmp_path / "none.quantfx"))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == f"quantfx: {tmp_path / 'none.quantfx'}: there is no such file\n"


def test_the_program_is_started_by_its_name_and_a_shell_completes_commands() -> None:
    asked = {"_QUANTFX_COMPLETE": "bash_complete", "COMP_WORDS": "quantfx re", "COMP_CWORD": "1"}
    assert process("-m", "quantfx.cli", environment=asked).stdout.split() == ["plain,report"]

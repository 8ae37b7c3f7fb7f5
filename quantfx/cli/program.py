"""The program ``quantfx``: its commands, its exit status, and its error messages."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
import torch

from quantfx.cli.backends import backends_command
from quantfx.cli.bench import bench_command
from quantfx.cli.command import write_lines
from quantfx.cli.compare import compare_command
from quantfx.cli.demo import demo_command
from quantfx.cli.diff import diff_command
from quantfx.cli.doctor import doctor_command
from quantfx.cli.draw import draw_command
from quantfx.cli.explain import explain_command
from quantfx.cli.patterns import patterns_command
from quantfx.cli.qat import qat_command
from quantfx.cli.quantize import quantize_command
from quantfx.cli.report import report_command
from quantfx.cli.sensitivity import sensitivity_command
from quantfx.patterns.errors import QuantfxError, QuantfxWarning

FAILED = 1
STOPPED = 130  # as shells report a program that Ctrl-C ended


_EXAMPLES = (
    "quantfx doctor",
    "quantfx quantize my.models:resnet --calibration images/ -o resnet.quantfx",
    "quantfx report resnet.quantfx",
    "quantfx explain resnet.quantfx layer4.2.conv3",
)
_STATUS = (
    ("0", "all is well"),
    (str(FAILED), "an error, or a check that does not hold"),
    ("2", "a wrong command line"),
    (str(STOPPED), "stopped by Ctrl-C"),
)
# See https://click.palletsprojects.com/shell-completion
_COMPLETION = (
    ("bash", 'eval "$(_QUANTFX_COMPLETE=bash_source quantfx)"'),
    ("zsh", 'eval "$(_QUANTFX_COMPLETE=zsh_source quantfx)"'),
    ("fish", "_QUANTFX_COMPLETE=fish_source quantfx | source"),
)


def _print_versions(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    import quantfx
    from quantfx.backends.checks import targets

    cpu = targets.host().name
    click.echo(f"quantfx {quantfx.__version__}, torch {torch.__version__}, target {cpu}")
    context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_versions,
    help="Show the versions of quantfx and torch, and the target that this CPU is.",
)


class Program(click.Group):
    """Commands whose results are exit statuses, and whose errors print as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the given command, and exit with its status."""
        try:
            with _told_warnings():
                status = super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles its own errors, and a pipe that `head` closed
        except KeyboardInterrupt:
            _tell("stopped")
            ctx.exit(STOPPED)
        except Exception as error:
            if ctx.params["traceback"]:
                raise
            _tell(str(error) if isinstance(error, QuantfxError) else _unforeseen(error))
            ctx.exit(FAILED)
        ctx.exit(status or 0)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, exit statuses and shell completion."""
        write_lines(formatter, "Examples", _EXAMPLES)
        for title, rows in (
            ("Exit status", _STATUS),
            ("Completion, in the start-up file of your shell", _COMPLETION),
        ):
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--traceback", is_flag=True, help="Show where in the code an error was raised.")
@version_option
def program(traceback: bool) -> None:
    """Quantize PyTorch models to int8 and ask what became of each operator."""


for _command in (
    quantize_command,
    report_command,
    explain_command,
    compare_command,
    sensitivity_command,
    draw_command,
    diff_command,
    doctor_command,
    patterns_command,
    backends_command,
    bench_command,
    demo_command,
    qat_command,
):
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: Arguments without the program's name; by default those of the process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        program.main(given, prog_name="quantfx")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _unforeseen(error: Exception) -> str:
    told = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{told} (`quantfx --traceback ...` shows where)"


def _tell(text: str, color: str = "red") -> None:
    click.secho(f"quantfx: {text}", fg=color, err=True)


@contextmanager
def _told_warnings() -> Generator[None]:
    """Print warnings of quantfx as sentences, without the line of code that warns."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, QuantfxWarning):
                _tell(f"warning: {message}", "yellow")
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = tell
        yield

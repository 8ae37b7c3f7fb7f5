"""The command line: ``quantfx demo | qat | report | patterns | backends | bench | doctor``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.quantized.rows import native_variant
from quantfx.load_result import load
from quantfx.passes.report.text import print_report
from quantfx.patterns.dot import pattern_set_to_dot
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.linter import lint
from quantfx.patterns.pattern_set import PatternSet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except QuantfxError as error:
        Console(stderr=True).print(f"quantfx: {error}", style="red", markup=False)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quantfx", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="quantize a trained network and measure it")
    demo.add_argument("--output", type=Path, default=Path("demo-out"), help="where drawings go")
    demo.add_argument("--full", action="store_true", help="report every operator, reason and pass")
    demo.set_defaults(run=_demo)
    qat = commands.add_parser("qat", help="train two small networks with weights of few bits")
    qat.add_argument("--output", type=Path, default=Path("demo-out"), help="where the curves go")
    qat.set_defaults(run=_qat)
    report = commands.add_parser("report", help="say what became of a saved model's operators")
    report.add_argument("file", type=Path, help="written by Result.save")
    report.add_argument("--full", action="store_true", help="every operator, reason and pass")
    report.add_argument("--json", type=Path, metavar="FILE", help="write all of it to this file")
    report.set_defaults(run=_report)
    patterns = commands.add_parser(
        "patterns", help="list, lint and draw the templates of a backend"
    )
    patterns.add_argument("--backend", default="x86")
    patterns.add_argument(
        "--draw", type=Path, metavar="FILE", help="draw them to .svg, .png or .dot"
    )
    patterns.set_defaults(run=_patterns)
    listing = commands.add_parser("backends", help="list the backends with specs and pipelines")
    listing.add_argument(
        "name", nargs="?", help="of one; 'native' also lists the rows of torch's BackendConfig"
    )
    listing.add_argument("--variant", default=None, help="of 'native', e.g. 'qnnpack'")
    listing.add_argument("--target", default="any", help="'host', 'any' or an instruction set")
    listing.set_defaults(run=_backends)
    _add_bench(commands.add_parser("bench", help="compare engines, which take turns in one run"))
    _add_doctor(commands.add_parser("doctor", help="say what this machine makes of int8"))
    return parser


def _add_doctor(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--backend", default="x86", help="whose templates to try")
    doctor.add_argument(
        "--compile",
        action="store_true",
        help="try the templates through Inductor, too; half a minute",
    )
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write all findings to it")
    doctor.set_defaults(run=_doctor)


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="resnet50, mobilenet_v2, bert or efficientnet_lite0 (needs the packages of the demo)",
    )
    bench.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:FUNCTION",
        help="your own: a function that returns (model, example_inputs, calibration_batches)",
    )
    bench.add_argument("--engines", metavar="A,B,C", help="which; an unknown name lists them all")
    bench.add_argument("--rounds", type=int, default=15, help="turns of each engine")
    bench.add_argument("--calls", type=int, default=5, help="timed calls of a turn")
    bench.add_argument("--batch", type=int, default=1, help="rows of a batch of a named model")
    bench.add_argument("--threads", type=int, default=None, help="of each engine; default: all")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it")
    bench.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw speed-ups to it")
    bench.add_argument(
        "--breakdown", action="store_true", help="say where the milliseconds of quantfx are"
    )
    bench.set_defaults(run=_bench)


def _demo(options: argparse.Namespace) -> int:
    from quantfx.tools.demo.run import run  # the facade reaches tools lazily

    run(options.output, full=options.full)
    return 0


def _qat(options: argparse.Namespace) -> int:
    from quantfx.tools.demo.low_bits import run  # the facade reaches tools lazily

    run(options.output)
    return 0


def _report(options: argparse.Namespace) -> int:
    report = load(options.file).report
    if options.json is not None:
        options.json.write_text(report.to_json(), encoding="utf-8")
    print_report(Console(), report, full=options.full)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from quantfx.tools.bench.engines import DEFAULT
    from quantfx.tools.bench.run import Request, run  # the facade reaches tools lazily

    run(
        Request(
            models=(*options.models, *options.model),
            engines=options.engines.split(",") if options.engines else DEFAULT,
            rounds=options.rounds,
            calls=options.calls,
            batch=options.batch,
            threads=options.threads,
            json=options.json,
            chart=options.chart,
            breakdown=options.breakdown,
        )
    )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from quantfx.tools.doctor.run import run  # the facade reaches tools lazily

    report = run(options.backend, compiles=options.compile, json=options.json)
    return 1 if report.problems else 0


def _patterns(options: argparse.Namespace) -> int:
    console = Console()
    backend = backends.get(options.backend, target="any")
    patterns = backend.recipe.patterns
    if backend.qat is not None:
        patterns = patterns | backend.qat.patterns
    console.print(_pattern_table(patterns))
    if patterns.unsupported:
        console.print(_unsupported_table(patterns))
    findings = lint(patterns)
    for finding in findings:
        console.print(f"{finding.rule}: {finding.template}: {finding.message}", style="red")
    if options.draw is not None:
        from quantfx.tools.drawing.render import render  # the facade reaches tools lazily

        console.print(f"drawn to {render(pattern_set_to_dot(patterns), options.draw)}")
    return 1 if findings else 0


def _pattern_table(patterns: PatternSet) -> Table:
    table = Table("template", "mode", "nodes", "quantized", "reaches", title=patterns.name)
    for template in patterns.templates:
        nodes = "\n".join(str(node) for node in template.nodes)
        checks = "".join(f"\nif {check}" for check in template.checks)
        quant = "\n".join(f"{key}: {spec}" for key, spec in template.quant.items())
        mode = template.mode + (" (on request)" if template.on_request else "")
        reaches = template.kernel or template.reach
        table.add_row(template.name, mode, nodes + checks, quant, reaches)
    return table


def _unsupported_table(patterns: PatternSet) -> Table:
    table = Table("stays float", "because")
    for op, reason in patterns.unsupported:
        table.add_row(op.name, reason)
    return table


def _backends(options: argparse.Namespace) -> int:
    console = Console()
    if options.variant is not None and options.name != "native":
        fix = "write quantfx backends native --variant NAME"
        raise QuantfxError("only 'native' has variants", rule="no-variants", fix=fix)
    for name in backends.NAMES if options.name is None else (options.name,):
        if options.variant is None:
            console.print(_backend_table(backends.get(name, target=options.target)))
    if options.name == "native":
        from quantfx.tools.drawing.native_table import (
            native_table,  # the facade reaches tools lazily
        )

        console.print(native_table(native_variant(options.variant or "native")))
    return 0


def _backend_table(backend: Backend) -> Table:
    table = Table(show_header=False, title=f"{backend.name} for {backend.target_name}")
    table.add_row("policy", backend.policy)
    table.add_row("modes", ", ".join(backend.recipe.patterns.modes))
    table.add_row("patterns", ", ".join(backend.recipe.patterns.names))
    for name, spec in backend.recipe.specs:
        table.add_row(name, str(spec))
    table.add_row("prepare", str(backend.prepare_pipeline))
    table.add_row("convert", str(backend.convert_pipeline))
    if backend.qat is not None:
        table.add_row("patterns of training", ", ".join(backend.qat.patterns.names))
        table.add_row("after training", str(backend.qat.finish))
    return table


if __name__ == "__main__":
    sys.exit(main())

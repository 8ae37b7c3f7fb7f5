"""``quantfx bench``."""

from __future__ import annotations

from pathlib import Path

import click

from quantfx.cli.command import command
from quantfx.cli.options import FILE


@command(
    "bench",
    "quantfx bench resnet50 --engines fp32,quantfx",
    "quantfx bench --model my.models:net --json bench.json --chart bench.svg",
    "quantfx bench mobilenet_v2 --breakdown",
    "quantfx bench --decoder my.models:decoder --rounds 20",
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--model",
    "own",
    multiple=True,
    metavar="PACKAGE.MODULE:FUNCTION",
    help="A function that returns (model, example_inputs, calibration_batches).",
)
@click.option(
    "--decoder",
    metavar="PACKAGE.MODULE:FUNCTION",
    help="A function that returns (model, tokens, []), to decode with a cache; alone.",
)
@click.option(
    "--tokens", type=int, default=100, show_default=True, help="Tokens to compare of a decoder."
)
@click.option("--engines", metavar="A,B,C", help="Engines; an unknown name lists all.")
@click.option("--rounds", type=int, default=15, show_default=True, help="Turns of each engine.")
@click.option("--calls", type=int, default=5, show_default=True, help="Timed calls per turn.")
@click.option(
    "--batch", type=int, default=1, show_default=True, help="Rows per batch of a named model."
)
@click.option("--threads", type=int, help="Threads of each engine.  [default: all]")
@click.option("--json", type=FILE, metavar="FILE", help="Write all figures to this file.")
@click.option("--chart", type=FILE, metavar="FILE.svg", help="Draw speed-ups to this file.")
@click.option("--breakdown", is_flag=True, help="Break down the time of quantfx.")
def bench_command(
    models: tuple[str, ...],
    own: tuple[str, ...],
    decoder: str | None,
    tokens: int,
    engines: str | None,
    rounds: int,
    calls: int,
    batch: int,
    threads: int | None,
    json: Path | None,
    chart: Path | None,
    breakdown: bool,
) -> None:
    """Compare engines, which run in turns.

    MODEL is resnet50, mobilenet_v2, bert or efficientnet_lite0 (which needs the packages of the
    demo).
    """
    if decoder is not None:
        if models or own or engines or json or chart or breakdown:
            raise click.UsageError("--decoder goes with --tokens, --rounds and --threads only")
        from quantfx.tools.bench.decoding import DecoderRequest, run_decoder

        run_decoder(DecoderRequest(decoder, steps=tokens, rounds=rounds, threads=threads))
        return
    from quantfx.tools.bench.engines import DEFAULT  # engines import Inductor
    from quantfx.tools.bench.run import Request, run

    run(
        Request(
            models=(*models, *own),
            engines=engines.split(",") if engines else DEFAULT,
            rounds=rounds,
            calls=calls,
            batch=batch,
            threads=threads,
            json=json,
            chart=chart,
            breakdown=breakdown,
        )
    )

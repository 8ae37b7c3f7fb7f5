"""``quantfx bench --decoder``: a decoder with a cache, in float and quantized, token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quantfx
from quantfx.decoder import Runner
from quantfx.decoding.growth import grown
from quantfx.decoding.step import step_of
from quantfx.passes.config.config import Config, ConfigLike
from quantfx.passes.inputs.leaves import describe_leaves
from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.workload import WorkloadError, call_function
from quantfx.tools.measure.machine import this_machine

BASELINE = "float"
GROUPS = Config("weight-only").weights(group=32)
ROWS: tuple[tuple[str, ConfigLike], ...] = (
    ("weight-only", "weight-only"),
    ("weight-only, 32", GROUPS),
    ("weight-only-4bit", "weight-only-4bit"),
)
_LEGEND = (
    "float: compiled by Inductor with frozen weights. Milliseconds are the least of all turns, in "
    "which the rows alternate. 32: a scale for 32 values of a row. Same tokens: how often a row's "
    "likeliest token is that of float, whose tokens all rows are given."
)


@dataclass(frozen=True)
class DecoderRequest:
    """The request of the command line.

    Attributes:
        model: ``package.module:function``, which returns ``(model, tokens, prompts)``.
        configs: Name and config of each quantized row.
        steps: Number of tokens to compare.
        rounds: Number of timed tokens, and a quarter as many prompts.
        threads: Threads of torch; None for torch's number.
    """

    model: str
    configs: Sequence[tuple[str, ConfigLike]] = ROWS
    steps: int = 100
    rounds: int = 20
    threads: int | None = None


@dataclass(frozen=True)
class Decoded:
    """The measurements of one row.

    Attributes:
        name: Name of the row: ``float``, or that of its config.
        token_ms: Milliseconds to decode one token after the prompt.
        first_ms: Milliseconds from the prompt to its first token.
        same: Share of tokens equal to float's, from 0 to 1.
        build_s: Seconds to quantize, compile and decode the first tokens.
    """

    name: str
    token_ms: float
    first_ms: float
    same: float
    build_s: float

    @property
    def tokens_per_second(self) -> float:
        """The tokens decoded in a second."""
        return 1e3 / self.token_ms


def run_decoder(request: DecoderRequest, console: Console | None = None) -> tuple[Decoded, ...]:
    """Measure a decoder in float and with every config, and print a table.

    Args:
        request: What to measure.
        console: Where to print; by default standard output.

    Raises:
        WorkloadError: the function does not return a decoder and a prompt.
        QuantfxError: a number below 1, or the decoder cannot be captured or quantized.
    """
    console = console or Console()
    for option, number in (("--tokens", request.steps), ("--rounds", request.rounds)):
        if number < 1:
            message = f"{option} must be at least 1, got {number}"
            raise QuantfxError(message, rule="number-range", site=option)
    model, prompt, _ = call_function(request.model)
    if not isinstance(prompt, Tensor) or prompt.dim() != 2 or prompt.shape[1] < 4:
        message = f"{request.model}: the second result is no prompt of shape (rows, tokens)"
        fix = "return (model, tokens, []), with four tokens or more"
        raise WorkloadError(message, rule="not-a-workload", site=request.model, fix=fix)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    with torch.no_grad(), console.status("starting") as status:
        built = dict(_build(model, prompt, request.configs, status.update))
        status.update("measuring")
        runs = {name: run for name, (run, _) in built.items()}
        times, same = _times(runs, prompt, request.rounds), _agreement(runs, prompt, request.steps)
    rows = tuple(
        Decoded(name, *times[name], same[name], seconds) for name, (_, seconds) in built.items()
    )
    console.print(_table(request, rows, prompt))
    machine = this_machine()
    told = f"{machine.cpu}, {machine.target}, {torch.get_num_threads()} threads. {_LEGEND}"
    console.print(told, markup=False, highlight=False)
    return rows


def float_decoder(model: nn.Module, prompt: Tensor) -> Runner:
    """Return the float model, whose decoding graph Inductor compiles with frozen weights."""
    step = step_of(model)
    cache, growing = grown(step, prompt)
    places = iter(growing)
    free = describe_leaves(lambda *_: next(places).shapes, "", cache)
    graph = quantfx.capture(
        step, (prompt[:, -1:].contiguous(), cache), dynamic_shapes={"tokens": None, "cache": free}
    )
    return Runner(step, torch.compile(graph, dynamic=True, options={"freezing": True}))


def _build(
    model: nn.Module,
    prompt: Tensor,
    configs: Sequence[tuple[str, ConfigLike]],
    announce: Callable[[str], None],
) -> Iterator[tuple[str, tuple[Runner, float]]]:
    """Yield each row's name, with its runner and the seconds that it took to build."""
    for name, config in ((BASELINE, None), *configs):
        announce(f"building {name}")
        start = time.perf_counter()
        if config is None:
            run = float_decoder(model, prompt)
        else:
            decoder = quantfx.quantize_decoder(model, prompt, config=config)
            run = Runner(decoder.prefill.module, decoder.decode.compile())
        run.generate(prompt, 3)
        yield name, (run, time.perf_counter() - start)


def _times(runs: dict[str, Runner], prompt: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the milliseconds of a token and of a prompt's first token, by row."""
    states = {name: run.prefill(prompt) for name, run in runs.items()}
    token, first = (dict.fromkeys(runs, float("inf")) for _ in range(2))
    for _ in range(rounds):
        for name, run in runs.items():
            logits, cache = states[name]
            chosen = logits[:, -1:].argmax(-1)
            token[name] = min(token[name], _milliseconds(run.decode, chosen, cache))
    for _ in range(max(rounds // 4, 1)):
        for name, run in runs.items():
            first[name] = min(first[name], _milliseconds(run.prefill, prompt))
    return {name: (token[name], first[name]) for name in runs}


def _milliseconds(call: Callable[..., Any], *inputs: Any) -> float:
    start = time.perf_counter()
    call(*inputs)
    return (time.perf_counter() - start) * 1e3


def _agreement(runs: dict[str, Runner], prompt: Tensor, steps: int) -> dict[str, float]:
    """Return the share of tokens that equal float's, by row."""
    states = {name: run.prefill(prompt) for name, run in runs.items()}
    same = dict.fromkeys(runs, 0)
    for _ in range(steps):
        chosen = {name: logits[:, -1:].argmax(-1) for name, (logits, _) in states.items()}
        for name, run in runs.items():
            same[name] += int(torch.equal(chosen[name], chosen[BASELINE]))
            states[name] = run.decode(chosen[BASELINE], states[name][1])
    return {name: count / steps for name, count in same.items()}


def _table(request: DecoderRequest, rows: Sequence[Decoded], prompt: Tensor) -> Table:
    table = Table(title=f"{request.model}, a prompt of {prompt.shape[1]} tokens", min_width=76)
    table.add_column("row", no_wrap=True)
    for title in (
        "ms a\ntoken",
        "tokens\n/s",
        "speed\n-up",
        "ms to\nfirst",
        "same\ntokens",
        "build\ns",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    baseline = rows[0].token_ms
    for row in rows:
        table.add_row(
            row.name,
            f"{row.token_ms:.2f}",
            f"{row.tokens_per_second:.0f}",
            f"{baseline / row.token_ms:.2f}x",
            f"{row.first_ms:.0f}",
            f"{row.same:.1%}",
            f"{row.build_s:.0f}",
        )
    return table

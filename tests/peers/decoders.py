"""Decoders of twelve layers, 768 wide, random weights: int8 and int4 beside float Inductor.

    python -m tests.peers.decoders small|gpt2|llama [MODE ...]
    python -m tests.peers.decoders small|gpt2|llama cache

prints, on one thread and taking turns: milliseconds and tokens/s of a token, of the first token of a prompt
of 128, and how many of 500 tokens are the float model's (which goes on with its own). ``small`` is that of
tests/models; the others need ``pip install transformers``. ``cache`` prints milliseconds of a token behind
contexts, with a float and an int8 cache, both ``weight-only`` and compiled. docs/guides/decoders.md shows
what it prints.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.decoder import CacheDtype, Runner
from quantfx.decoding.step import grown, step_of
from quantfx.passes.inputs.leaves import describe_leaves, leaves_in
from quantfx.tools.measure.metrics import sqnr_db
from tests.models.decoder import SmallDecoder

VOCABULARY, STEPS, ROUNDS = 8192, 500, 20
CONTEXTS = (128, 512, 1000)  # gpt2 has 1024 places
MODES = ("weight-only", "weight-only-4bit")


def model_of(name: str) -> nn.Module:
    """Return the float decoder."""
    torch.manual_seed(0)
    if name == "small":
        return SmallDecoder(layers=12, width=768, vocabulary=VOCABULARY).eval()
    library = importlib.import_module("transformers")
    if name == "gpt2":
        shape = library.GPT2Config(vocab_size=VOCABULARY)  # which has 12 layers, 768 wide
        model: nn.Module = library.GPT2LMHeadModel(shape)
    else:
        shape = library.LlamaConfig(
            num_hidden_layers=12,
            hidden_size=768,
            intermediate_size=2048,
            num_attention_heads=12,
            num_key_value_heads=4,
            vocab_size=VOCABULARY,
        )
        model = library.LlamaForCausalLM(shape)
    return model.eval()


def float_runner(model: nn.Module, prompt: Tensor) -> Runner:
    """Return the float model, whose decoding graph Inductor compiles with frozen weights."""
    step = step_of(model)
    cache, growing = grown(step, prompt)
    places = iter(growing)
    free = describe_leaves(lambda *_: dict.fromkeys(next(places), Dim.AUTO) or None, "", cache)
    graph = quantfx.capture(
        step, (prompt[:, -1:].contiguous(), cache), dynamic_shapes={"tokens": None, "cache": free}
    )
    compiled = torch.compile(graph, dynamic=True, options={"freezing": True})
    return Runner(step, compiled)


def seconds(call: Callable[..., Any], *inputs: Any) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call(*inputs)
    return time.perf_counter() - start


def times(runs: dict[str, Runner], prompt: Tensor) -> dict[str, tuple[float, float]]:
    """Return seconds of a token, behind 16, and of the first of ``prompt``; the least of all."""
    states = {name: run.prefill(prompt[:, :16]) for name, run in runs.items()}
    best = {name: [float("inf")] * 2 for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            logits, cache = states[name]
            token = logits[:, -1:].argmax(-1)
            best[name][0] = min(best[name][0], seconds(run.decode, token, cache))
    for _ in range(3):
        for name, run in runs.items():
            best[name][1] = min(best[name][1], seconds(run.prefill, prompt))
    return {name: (found[0], found[1]) for name, found in best.items()}


def agreement(runs: dict[str, Runner], prompt: Tensor) -> dict[str, float]:
    """Return the share of tokens that are those of ``float``, with which all go on."""
    states = {name: run.prefill(prompt) for name, run in runs.items()}
    same = dict.fromkeys(runs, 0)
    for _ in range(STEPS):
        chosen = {name: logits[:, -1:].argmax(-1) for name, (logits, _) in states.items()}
        for name, run in runs.items():
            same[name] += int(torch.equal(chosen[name], chosen["float"]))
            states[name] = run.decode(chosen["float"], states[name][1])
    return {name: count / STEPS for name, count in same.items()}


def compare_caches(name: str, model: nn.Module) -> None:
    """Print what a token costs behind a context, and what the cache does to logits and tokens."""
    made = torch.Generator().manual_seed(0)
    prompts = [torch.randint(0, VOCABULARY, (1, 1016), generator=made) for _ in range(2)]
    long = torch.randint(0, VOCABULARY, (1, max(CONTEXTS)), generator=made)
    runs: dict[str, Runner] = {}
    kinds: dict[CacheDtype, list[Tensor] | None] = {"float": None, "int8": prompts}
    for cache, given in kinds.items():
        decoder = quantfx.quantize_decoder(model, long[:, :16], cache=cache, prompts=given)
        runs[cache] = Runner(decoder.prefill.module, decoder.decode.compile())
        print(f"{name}, {cache}: {[n for n in decoder.decode.report.notes if 'cache' in n]}")
    print("| context | ms a token, float | int8 | as fast | MiB of cache, float | int8 | "
          "int8 to float, dB | of 16 tokens |")  # fmt: skip
    for context in CONTEXTS:
        states = {each: run.prefill(long[:, :context]) for each, run in runs.items()}
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(5 * ROUNDS):
            for each, run in runs.items():
                token = states["float"][0][:, -1:].argmax(-1)
                best[each] = min(best[each], seconds(run.decode, token, states[each][1]))
        sizes = {
            each: sum(leaf.nbytes for leaf in leaves_in(cache)) / 2**20
            for each, (_, cache) in states.items()
        }
        found: list[list[Tensor]] = []
        for _ in range(16):
            token = states["float"][0][:, -1:].argmax(-1)
            states = {each: run.decode(token, states[each][1]) for each, run in runs.items()}
            found.append([states[each][0] for each in ("float", "int8")])
        exact, other = (torch.cat(each) for each in zip(*found, strict=True))
        same = (exact.argmax(-1) == other.argmax(-1)).sum()
        print(f"| {context} | {best['float'] * 1e3:.1f} | {best['int8'] * 1e3:.1f} "
              f"| {best['float'] / best['int8']:.2f} | {sizes['float']:.1f} | {sizes['int8']:.1f} "
              f"| {sqnr_db(exact, other):.1f} | {int(same)} |", flush=True)  # fmt: skip


def main(name: str, modes: list[str]) -> None:
    """Measure, and print a row for each."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = model_of(name)
    if modes == ["cache"]:
        compare_caches(name, model)
        return
    prompt = torch.randint(0, VOCABULARY, (1, 128), generator=torch.Generator().manual_seed(0))
    runs = {"float": float_runner(model, prompt[:, :16])}
    for mode in modes or MODES:
        decoder = quantfx.quantize_decoder(model, prompt[:, :16], config=mode)
        runs[mode] = Runner(decoder.prefill.module, decoder.decode.compile())
    for run in runs.values():
        run.generate(prompt[:, :16], 3)
    found, same = times(runs, prompt), agreement(runs, prompt[:, :16])
    print("| | ms a token | tokens/s | x float | ms to the first of 128 | of 500 tokens |")
    for each, (token, first) in found.items():
        ratio = found["float"][0] / token
        print(f"| {name}, {each} | {token * 1e3:.1f} | {1 / token:.0f} | {ratio:.2f} "
              f"| {first * 1e3:.0f} | {same[each]:.1%} |")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Decoders of twelve layers, 768 wide, random weights: for ``quantfx bench``, and their caches.

    quantfx bench --decoder tests.peers.decoders:gpt2 --threads 1 --tokens 500    # small, gpt2, llama
    python -m tests.peers.decoders gpt2

``small`` is that of tests/models; the others need ``pip install transformers``. The second line
prints milliseconds of a token behind contexts, on one thread, with a float and an int8 cache, both
``weight-only`` and compiled, in turns. docs/guides/decoders.md shows what both print.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import quantfx
from quantfx.decoder import CacheDtype, Runner
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.tools.measure.metrics import sqnr_db
from tests.models.decoder import SmallDecoder

VOCABULARY, ROUNDS = 8192, 20
CONTEXTS = (128, 512, 1000)  # gpt2 has 1024 places


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


def small() -> tuple[nn.Module, Tensor, list[Tensor]]:
    """Return what ``quantfx bench --decoder`` asks for."""
    return model_of("small"), prompt(), []


def gpt2() -> tuple[nn.Module, Tensor, list[Tensor]]:
    """Return what ``quantfx bench --decoder`` asks for."""
    return model_of("gpt2"), prompt(), []


def llama() -> tuple[nn.Module, Tensor, list[Tensor]]:
    """Return what ``quantfx bench --decoder`` asks for."""
    return model_of("llama"), prompt(), []


def prompt(tokens: int = 16) -> Tensor:
    """Return a prompt of random words."""
    return torch.randint(0, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(0))


def seconds(call: Callable[..., Any], *inputs: Any) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call(*inputs)
    return time.perf_counter() - start


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


def main(name: str) -> None:
    """Measure the caches of a decoder."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    compare_caches(name, model_of(name))


if __name__ == "__main__":
    main(sys.argv[1])

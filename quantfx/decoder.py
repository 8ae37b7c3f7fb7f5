"""A quantized decoder: a graph for the prompt and one for the next token, which share weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.api import quantize
from quantfx.backends.backend import Backend
from quantfx.decoding.share_tensors import share_tensors
from quantfx.decoding.step import grown, step_of
from quantfx.load_result import load
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.leaves import describe_leaves
from quantfx.result import Result

_PREFILL, _DECODE = "prefill.quantfx", "decode.quantfx"


@dataclass(frozen=True)
class Runner:
    """The calls of both graphs of a decoder, in any form.

    Attributes:
        prefill: ``(tokens) -> (logits, cache)``.
        decode: ``(token, cache) -> (logits, cache)``.
    """

    prefill: Callable[..., Any]
    decode: Callable[..., Any]

    def generate(self, tokens: Tensor, count: int) -> Tensor:
        """Return ``tokens`` extended greedily by ``count`` tokens, shape ``(rows, all)``."""
        with torch.no_grad():
            logits, cache = self.prefill(tokens)
            found = [tokens, logits[:, -1:].argmax(-1)]
            for _ in range(count - 1):
                logits, cache = self.decode(found[-1], cache)
                found.append(logits[:, -1:].argmax(-1))
        return torch.cat(found, 1)


@dataclass(frozen=True)
class Decoder:
    """The results of both graphs, whose q/dq and lowered graphs share their tensors.

    Attributes:
        prefill: Result for a prompt of two or more tokens.
        decode: Result for one more token, after at least two.
    """

    prefill: Result
    decode: Result

    def __post_init__(self) -> None:
        share_tensors(self.prefill.quantized, self.decode.quantized)
        share_tensors(self.prefill.module, self.decode.module)

    @property
    def module(self) -> Runner:
        """The lowered graphs, run without a compiler."""
        return Runner(self.prefill.module, self.decode.module)

    def compile(self) -> Runner:
        """Return a runner of both graphs, compiled."""
        return Runner(self.prefill.compile(), self.decode.compile())

    def save(self, folder: str | Path) -> None:
        """Write both results to ``folder``, one file each."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.prefill.save(Path(folder) / _PREFILL)
        self.decode.save(Path(folder) / _DECODE)


def load_decoder(folder: str | Path) -> Decoder:
    """Return the decoder that ``Decoder.save`` wrote, lowered for this machine."""
    return Decoder(load(Path(folder) / _PREFILL), load(Path(folder) / _DECODE))


def quantize_decoder(
    model: nn.Module,
    tokens: Tensor,
    *,
    config: ConfigLike = "weight-only",
    backend: str | Backend = "x86",
    strict: bool = True,
) -> Decoder:
    """Quantize a decoder with a cache: a graph for prompts, and one for the next token.

    Args:
        model: A model in eval mode; not changed. Either a Hugging Face model, or a module with
            ``forward(tokens, cache=None)`` that returns ``(logits, cache)``. The cache is tensors
            in tuples, lists and dicts, which grow with the tokens.
        tokens: A prompt of at least four tokens, shape ``(rows, tokens)``; rows are fixed.
        config: ``"weight-only"``, ``"weight-only-4bit"``, ``"dynamic"`` or a `Config` of these.
        backend: As for ``quantize``.
        strict: As for ``quantize``.

    Raises:
        CaptureError: the model has no growing cache, or torch.export rejects it.
        CalibrationError: the config needs calibration data, which this function does not take.
    """
    if tokens.dim() != 2 or tokens.shape[1] < 4:
        message = f"the prompt has shape {tuple(tokens.shape)}, not (rows, four tokens or more)"
        raise CaptureError(message, rule="batch-form", site="tokens")
    step = step_of(model)
    first, second, *_ = inspect.signature(step.forward).parameters
    cache, growing = grown(step, tokens)
    places = iter(growing)
    free = describe_leaves(
        lambda _, leaf: dict.fromkeys(next(places), Dim.AUTO) or None, second, cache
    )
    results: list[Result] = []
    for inputs, shapes in (
        ((tokens,), {first: {1: Dim.AUTO}}),
        ((tokens[:, -1:].contiguous(), cache), {first: None, second: free}),
    ):
        results.append(
            quantize(
                step,
                inputs,
                config=config,
                backend=backend,
                dynamic_shapes=shapes,
                strict=strict,
            )
        )
    return Decoder(*results)

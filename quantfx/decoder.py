"""A quantized decoder: a graph for the prompt and one for the next token, which share weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.decoding.cache_scales import int8_cache
from quantfx.decoding.growth import Growth, grown, require_free_counts
from quantfx.decoding.quantize_cache import QuantizeCache
from quantfx.decoding.step import step_of
from quantfx.load_result import load
from quantfx.make_result import choose_backend, make_result
from quantfx.passes.capture.capture import capture
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.errors import ArgumentError, CaptureError
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import all_graphs, constant
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import describe_leaves
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.errors import did_you_mean
from quantfx.result import Result

CacheDtype: TypeAlias = Literal["float", "int8"]

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
    cache: CacheDtype = "float",
    prompts: Iterable[Tensor] | None = None,
    backend: str | Backend = "x86",
    strict: bool = True,
) -> Decoder:
    """Quantize a decoder with a cache: a graph for prompts, and one for the next token.

    Args:
        model: A model in eval mode; not changed. Either a Hugging Face model, or a module with
            ``forward(tokens, cache=None)`` that returns ``(logits, cache)``. The cache is tensors
            in tuples, lists and dicts, which grow with the tokens; whole numbers may count them.
        tokens: A prompt of at least four tokens, shape ``(rows, tokens)``; rows are fixed.
        config: ``"weight-only"``, ``"weight-only-4bit"``, ``"dynamic"`` or a `Config` of these.
        cache: ``"float"`` leaves the model's cache as it is. ``"int8"`` keeps its tensors in int8
            between calls, with one scale for each position of all dimensions but the rows and the
            one that grows. New values beyond their range saturate; old ones are never rounded
            again.
        prompts: Prompts of any number of rows, as long as the contexts to come, through which the
            float model goes to find the scales of an int8 cache; by default ``tokens`` alone, with
            a warning.
        backend: As for ``quantize``.
        strict: As for ``quantize``.

    Raises:
        ArgumentError: there is no such cache, or prompts are given for a float one.
        CaptureError: the model has no growing cache, changes what is in it (for an int8 one), turns
            other things than tensors and whole numbers into others, or torch.export rejects it.
        CalibrationError: the config needs calibration data, which this function does not take; or
            a prompt is none.
    """
    _require_options(cache, prompts)
    if tokens.dim() != 2 or tokens.shape[1] < 4:
        message = f"the prompt has shape {tuple(tokens.shape)}, not (rows, four tokens or more)"
        raise CaptureError(message, rule="batch-form", site="tokens")
    step = step_of(model)
    first, second, *_ = inspect.signature(step.forward).parameters
    past, growing = grown(step, tokens)
    places = iter(growing)
    free = describe_leaves(lambda *_: next(places).shapes, second, past)
    to_int8 = int8_cache(step, tokens, past, growing, prompts) if cache == "int8" else None
    chosen = choose_backend(backend, config)
    prompt = ExampleInputs((tokens,), dynamic_shapes={first: {1: Dim.AUTO}})
    token = ExampleInputs(
        (tokens[:, -1:].contiguous(), past), dynamic_shapes={first: None, second: free}
    )
    both = (_quantize(step, each, growing, to_int8, chosen, strict) for each in (prompt, token))
    return Decoder(*both)


def _quantize(
    step: nn.Module,
    inputs: ExampleInputs,
    growing: list[Growth],
    to_int8: QuantizeCache | None,
    backend: Backend,
    strict: bool,
) -> Result:
    """Do what ``quantize`` does, with a cache in int8 if that is asked for."""
    graph = capture(step, inputs.args, dynamic_shapes=inputs.dynamic_shapes)
    if len(inputs.args) == 2:
        require_free_counts(graph, inputs.args[1], growing)
    if to_int8 is not None:
        graph = Pipeline((to_int8,)).run(graph)
        inputs = replace(inputs, args=to_int8.inputs(inputs.args))
    quantized = backend.convert(backend.prepare(graph, strict=strict), strict=strict)
    model = step if to_int8 is None else None  # which takes another cache
    return make_result(graph, quantized, backend, inputs, strict=strict, model=model)


def _require_options(cache: str, prompts: Iterable[Tensor] | None) -> None:
    known = get_args(CacheDtype)
    if cache not in known:
        raise ArgumentError(
            f"there is no cache '{cache}'{did_you_mean(cache, known)}",
            rule="unknown-name",
            site="cache",
            fix=f"one of {', '.join(map(repr, known))}",
        )
    if cache == "float" and prompts is not None:
        raise ArgumentError(
            "prompts are for the scales of an int8 cache, and this one is float",
            rule="option-value",
            site="prompts",
            fix="add cache='int8'",
        )


def share_tensors(first: GraphModule, second: GraphModule) -> int:
    """Let ``second`` read equal tensors of ``first`` in place of its own; return how many.

    Tensors are compared under equal names, which derive from the model's names.
    """
    known = {(path, target): tensor for path, _, target, tensor in _stored(first)}
    shared = 0
    for path, module, target, tensor in list(_stored(second)):
        same = known.get((path, target))
        if same is None or same is tensor or same.dtype != tensor.dtype:
            continue
        if same.shape == tensor.shape and torch.equal(same, tensor):
            set_tensor(module, target, same)
            shared += 1
    return shared


def _stored(module: GraphModule) -> list[tuple[str, GraphModule, str, Tensor]]:
    found: dict[tuple[str, str], tuple[str, GraphModule, str, Tensor]] = {}
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.find_nodes(op="get_attr"):
            value = constant(graph_module, node)
            if value is not None:
                target = str(node.target)
                found[path, target] = (path, graph_module, target, value)
    return list(found.values())

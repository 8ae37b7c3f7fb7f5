"""Which tensors of a cache are kept in int8, with which scales, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.decoding.cache_scales import int8_cache
from quantfx.decoding.growth import grown
from quantfx.decoding.quantize_cache import CacheLeaf, QuantizeCache
from quantfx.passes.errors import ArgumentError, CalibrationError, CaptureError
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.tools.models.seeded import seeded
from tests.models.decoder import SmallDecoder
from tests.refusals import refused, warned

PROMPT = torch.arange(12).reshape(2, 6)


class Keeps(nn.Module):
    """Keeps rows of 16 numbers a token, and what ``kept`` makes of them.

    Args:
        kind: What is done to the past: ``"tokens first"`` puts tokens before rows, ``"window"``
            keeps four tokens, ``"twice"`` two places a token, ``"fades"`` halves old values, ``"computes"`` divides them
            by one.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.table = nn.Embedding(32, 16)
        self.head = nn.Linear(16, 32)

    def forward(self, tokens: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Return logits, and a dict of rows, the tokens themselves, and a sum."""
        rows = self.table(tokens)
        axis = 1
        if self.kind == "tokens first":
            rows, axis = rows.transpose(0, 1), 0
        new = torch.cat((rows, rows), axis) if self.kind == "twice" else rows
        ids, total = tokens, rows.sum((0, 1))
        if cache is not None:
            divisor = {"fades": 2, "computes": 1}.get(self.kind)
            past = cache["rows"] if divisor is None else cache["rows"] / divisor
            new = torch.cat((past, new), axis)
            ids, total = torch.cat((cache["ids"], tokens), 1), cache["total"] + total
        if self.kind == "window":
            new = new[:, -4:]
        mean = new.mean(axis)[:, None]
        return self.head(self.table(tokens) + mean), {"rows": new, "ids": ids, "total": total}


def pass_of(step: nn.Module, *prompts: Tensor) -> QuantizeCache:
    cache, growing = grown(step, PROMPT)
    return int8_cache(step, PROMPT, cache, growing, prompts or (PROMPT,))


def leaf_of(found: QuantizeCache, at: int = 0) -> CacheLeaf:
    leaf = found.leaves[at]
    assert leaf is not None
    return leaf


def test_a_scale_for_each_head_and_channel() -> None:
    step = seeded(SmallDecoder)
    found = pass_of(step)
    assert found.seen == 12
    for at in range(4):
        leaf = leaf_of(found, at)
        assert (leaf.axis, leaf.rows, leaf.values) == (2, 2, 64)
        assert leaf.scale.shape == (1, 4, 1, 16)
    keys = step(PROMPT)[1][0][0]
    assert bool((leaf_of(found).scale * 127 >= keys.abs().amax((0, 2), keepdim=True) * 0.999).all())


def test_more_prompts_of_any_form_widen_the_range() -> None:
    step = seeded(SmallDecoder)
    others = torch.arange(90).reshape(3, 30), torch.arange(7)[None]
    found = pass_of(step, *others)
    assert (found.seen, found.longest) == (97, 30)
    for prompt in others:
        keys = step(prompt)[1][0][0].abs().amax((0, 2), keepdim=True)
        assert bool((leaf_of(found).scale * 127 >= keys * 0.999).all())


def test_tensors_that_do_not_grow_or_hold_no_floats_stay() -> None:
    for kind, axis, shape in (("", 1, (1, 1, 16)), ("tokens first", 0, (1, 1, 16))):
        step = seeded(partial(Keeps, kind))
        found = pass_of(step)
        assert [leaf is None for leaf in found.leaves] == [False, True, True]
        assert (leaf_of(found).axis, leaf_of(found).scale.shape) == (axis, shape)
        assert "2 that do not grow" in found.text


def test_a_dict_with_tokens_first_decodes() -> None:
    step = seeded(partial(Keeps, "tokens first"))
    prompts = [torch.arange(32).reshape(2, 16)]
    decoder = quantfx.quantize_decoder(step, PROMPT, cache="int8", prompts=prompts)
    logits, cache = decoder.module.prefill(PROMPT[:, :5])  # the example's, to which ids are fixed
    token = logits[:, -1:].argmax(-1)
    exact, _ = step(token, step(PROMPT[:, :5])[1])
    found, grown_cache = decoder.module.decode(token, cache)
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.1)
    assert {name: each.dtype for name, each in grown_cache.items()} == {
        "rows": torch.int8,
        "ids": torch.int64,
        "total": torch.float32,
    }
    assert torch.equal(grown_cache["rows"][:-1], cache["rows"])


@pytest.mark.parametrize("kind", ["", "tokens first", "computes"])
def test_the_graph_reads_and_grows_integers(kind: str) -> None:
    """Whether the model puts new values right behind the past, or computes with it first."""
    step = seeded(partial(Keeps, kind))
    cache, token = grown(step, PROMPT)[0], PROMPT[:, -1:].contiguous()
    made = pass_of(step)
    run = Pipeline((made,)).run(quantfx.capture(step, (token, cache)))
    axis = leaf_of(made).axis
    args = made.inputs((token, cache))
    logits, found = run(*args)
    exact, _ = step(token, cache)
    torch.testing.assert_close(logits, exact, rtol=0.05, atol=0.05)
    assert torch.equal(found["rows"].narrow(axis, 0, 5), args[1]["rows"])
    new = step(token)[1]["rows"].flatten() / leaf_of(made).scale.flatten().repeat(2)
    assert torch.equal(found["rows"].select(axis, 5).flatten(), new.round().to(torch.int8))
    nodes = [node for node in run.graph.nodes if node.op == "call_function"]
    calls = [str(node.target).split(".")[1] for node in nodes]
    assert calls.count("read_cache") == calls.count("grow_cache") == 1
    assert ("slice" in calls) is (kind == "computes")


@pytest.mark.parametrize(("kind", "says"), [
    ("twice", r"goes from \(2, 10, 16\) to \(2, 12, 16\)"),
    ("fades", "other values for old tokens"),
    ("window", "holds no floats"),
])  # fmt: skip
def test_a_past_that_does_not_stay_is_refused(kind: str, says: str) -> None:
    with refused("cache-form", CaptureError, site="cache", fix="cache='int8'", says=says):
        pass_of(seeded(partial(Keeps, kind)))


def test_the_example_alone_is_warned_of() -> None:
    step = seeded(SmallDecoder)
    with warned("example-only", site="prompts", fix="prompts=[", says="12 tokens"):
        alone = int8_cache(step, PROMPT, *grown(step, PROMPT), None)
    assert (alone.seen, alone.longest) == (12, 6)
    assert torch.equal(leaf_of(alone).scale, leaf_of(pass_of(step)).scale)


def test_prompts_and_options_that_are_none_are_refused() -> None:
    step = seeded(SmallDecoder)
    for wrong in (PROMPT, [PROMPT[0]], [PROMPT[:, :0]], ["prompt"]):
        given: Any = wrong
        with refused("calibration-form", CalibrationError, site="prompts", fix="[prompt]"):
            quantfx.quantize_decoder(step, PROMPT, cache="int8", prompts=given)
    with refused("no-batches", CalibrationError, site="prompts", fix="[prompt]"):
        quantfx.quantize_decoder(step, PROMPT, cache="int8", prompts=iter(()))
    other: Any = "int4"
    with refused("unknown-name", ArgumentError, site="cache", fix="'int8'"):
        quantfx.quantize_decoder(step, PROMPT, cache=other)
    with refused("option-value", ArgumentError, site="prompts", fix="cache='int8'"):
        quantfx.quantize_decoder(step, PROMPT, prompts=[PROMPT])


def test_a_cache_that_is_not_finite_is_refused() -> None:
    step = seeded(SmallDecoder)
    with torch.no_grad():
        step.table.weight[31] = torch.inf
    with refused("not-finite", CalibrationError, site="prompts"):
        pass_of(step, torch.tensor([[31, 3]]))


def test_a_cache_of_fixed_size_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, tokens: Tensor, cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return tokens.float(), torch.zeros(1, 8) if cache is None else cache

    with refused("export-rejects", CaptureError, site="cache", fix="stays float"):
        quantfx.quantize_decoder(Fixed().eval(), PROMPT, cache="int8")

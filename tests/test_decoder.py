"""A decoder with a cache: two graphs, one copy of the weights, and the model's own tokens."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Decoder
from quantfx.decoder import Runner
from quantfx.passes.errors import CalibrationError, CaptureError
from quantfx.tools.models.seeded import seeded
from tests.models.decoder import SmallDecoder
from tests.refusals import refused

PROMPT = torch.randint(0, 96, (1, 6), generator=torch.Generator().manual_seed(0))
GROUPS = quantfx.Config("weight-only").weights(group=32)
MODES = ("weight-only", "weight-only-4bit", pytest.param(GROUPS, id="int8-groups"))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return seeded(SmallDecoder)


@pytest.fixture(scope="module", params=MODES)
def decoder(request: pytest.FixtureRequest, model: nn.Module) -> Decoder:
    return quantfx.quantize_decoder(model, PROMPT, config=request.param)


def reference(decoder: Decoder) -> Runner:
    """Return what runs the q/dq graphs, float arithmetic on the same integers."""
    return Runner(decoder.prefill.quantized, decoder.decode.quantized)


def linears(result: quantfx.Result) -> list[str]:
    """Return the linears that reached their kernel."""
    return [s.site.node for s in result.report.sites if s.kind == "linear" and s.kernel]


def test_every_product_is_quantized(decoder: Decoder) -> None:
    for result in (decoder.prefill, decoder.decode):
        assert len(linears(result)) == 4 * 2 + 1
        assert not [each for each in result.report.skipped if "linear" in each.op]
        assert not [op for op in result.report.uncovered if "mm" in op or "matmul" in op]


def test_both_graphs_compute_what_the_qdq_graphs_do(decoder: Decoder) -> None:
    lowered, exact = decoder.module, reference(decoder)
    with torch.no_grad():
        for length in (2, 6, 9):
            prompt = torch.arange(length).reshape(1, length)
            (ours, cache), (theirs, other) = lowered.prefill(prompt), exact.prefill(prompt)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            for _ in range(2):
                token = theirs[:, -1:].argmax(-1)
                (ours, cache), (theirs, other) = (
                    lowered.decode(token, cache),
                    exact.decode(token, other),
                )
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(cache, other, rtol=1e-4, atol=1e-4)


def test_int8_says_what_the_model_says(model: nn.Module) -> None:
    decoder = quantfx.quantize_decoder(model, PROMPT)
    tokens, agree = PROMPT, 0
    with torch.no_grad():
        logits, cache = decoder.module.prefill(tokens)
        for _ in range(20):
            expected = model(tokens)[0][:, -1:].argmax(-1)
            agree += int(torch.equal(logits[:, -1:].argmax(-1), expected))
            tokens = torch.cat((tokens, expected), 1)
            logits, cache = decoder.module.decode(expected, cache)
    assert agree >= 19


def large(result: quantfx.Result) -> list[Tensor]:
    """Return the quantized weights that the lowered graph reads."""
    return [each for each in result.module.buffers() if each.dtype in (torch.int8, torch.uint8)]


def test_the_graphs_hold_one_copy_of_the_weights(decoder: Decoder) -> None:
    first, second = large(decoder.prefill), large(decoder.decode)
    assert {id(each) for each in first} == {id(each) for each in second}
    assert sum(each.numel() for each in first) > 60_000 // 2


def test_files_give_the_same_bits_and_one_copy_again(tmp_path: Path, decoder: Decoder) -> None:
    decoder.save(tmp_path / "decoder")
    again = quantfx.load_decoder(tmp_path / "decoder")
    assert torch.equal(again.module.generate(PROMPT, 6), decoder.module.generate(PROMPT, 6))
    assert {id(each) for each in large(again.prefill)} == {id(each) for each in large(again.decode)}


# 15 kernels. In CI tests/passes/inputs/test_caches.py compiles a cache that goes in and comes out, and
# tests/backends/weight_only/test_family.py linears for free sizes.
@pytest.mark.sweep
def test_compiled_for_any_length(model: nn.Module) -> None:
    decoder = quantfx.quantize_decoder(model, PROMPT)
    assert torch.equal(decoder.compile().generate(PROMPT, 6), decoder.module.generate(PROMPT, 6))


def test_what_is_no_decoder_is_refused_by_name(model: nn.Module) -> None:
    with refused("batch-form", CaptureError, site="tokens"):
        quantfx.quantize_decoder(model, PROMPT[:, :2])
    with refused("input-names", CaptureError):
        quantfx.quantize_decoder(nn.Linear(4, 4).eval(), PROMPT)
    with refused("never-run", CalibrationError, site=None):
        quantfx.quantize_decoder(model, PROMPT, config="static")


def test_a_model_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers", reason="it is no dependency of quantfx")
    config = transformers.GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=96, n_positions=64)
    gpt2 = seeded(lambda: transformers.GPT2LMHeadModel(config))
    decoder = quantfx.quantize_decoder(gpt2, PROMPT)
    assert len(linears(decoder.decode)) == 4 * 2 + 1
    tokens = decoder.module.generate(PROMPT, 8)
    assert torch.equal(tokens, reference(decoder).generate(PROMPT, 8))


class InBuffers(nn.Module):
    """Writes keys of each token to a buffer of fixed size."""

    keys: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("keys", torch.zeros(1, 4, 8))

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        self.keys.index_copy_(1, place, self.layer(x))
        return self.keys.sum(1)


def test_a_cache_in_buffers_is_written_to_by_every_form(tmp_path: Path) -> None:
    rows = torch.randn(3, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    inputs = (rows[0], torch.tensor([0]))
    result = quantfx.quantize(seeded(InBuffers), inputs, config="weight-only")
    result.save(tmp_path / "buffers.quantfx")
    loaded = quantfx.load(tmp_path / "buffers.quantfx")
    expected = [result.quantized(row, torch.tensor([at])) for at, row in enumerate(rows)]
    for run in (result.module, result.compile(), loaded.module):
        found = [run(row, torch.tensor([at])) for at, row in enumerate(rows)]
        torch.testing.assert_close(found, expected)


def test_a_static_cache_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers", reason="it is no dependency of quantfx")
    executorch = importlib.import_module("transformers.integrations.executorch")
    config = transformers.GPT2Config(n_layer=1, n_embd=64, n_head=4, vocab_size=96, n_positions=64)
    gpt2 = seeded(lambda: transformers.GPT2LMHeadModel(config))
    gpt2.generation_config = transformers.GenerationConfig(
        use_cache=True, cache_implementation="static"
    )
    held = executorch.TorchExportableModuleWithStaticCache(gpt2, batch_size=1, max_cache_len=16)
    example = {"input_ids": PROMPT[:, :1], "cache_position": torch.tensor([0])}
    result = quantfx.quantize(held.eval(), (), example_kwargs=example, config="weight-only")
    for at in range(3):
        given = {"input_ids": PROMPT[:, at : at + 1], "cache_position": torch.tensor([at])}
        torch.testing.assert_close(result.module(**given), result.quantized(**given))

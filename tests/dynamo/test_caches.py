"""quantfx.auto on decoders: prompts and tokens, positions, and the caches of Hugging Face."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import CalibrationError
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused

PROMPT = torch.randint(0, 96, (1, 6), generator=torch.Generator().manual_seed(0))


class Positioned(nn.Module):
    """Adds learned positions, which are constants where the number of tokens is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(x + self.places(torch.arange(x.shape[1])))
        return made


def test_prompts_of_one_length_between_tokens_are_told_of_free_sizes() -> None:
    x = torch.randn(2, 6, 8)
    with torch.no_grad():
        auto = quantfx.auto(seeded(Positioned), calibration_batches=9)
        for given in (x, x[:, :1]):
            auto(given)
        auto.convert()
        with refused("never-run", CalibrationError, fix="quantfx.auto(model, dynamic=True)"):
            auto(x)


class Repeating(Positioned):
    """A method that calls the model, as decoders have."""

    def twice(self, x: Tensor) -> Tensor:
        made: Tensor = self(x) + self(2 * x)
        return made


def test_a_method_that_calls_the_model_is_observed_and_becomes_int8() -> None:
    x = torch.randn(2, 6, 8)
    model = seeded(Repeating)
    auto = quantfx.auto(model, calibration_batches=2)
    twice: Any = auto.twice
    with torch.no_grad():
        want = model.twice(x)
        assert torch.equal(twice(x), want)
        assert auto.observed == 2
        made = twice(x)
        assert auto.state == "int8"
        assert torch.equal(made, auto(x) + auto(2 * x))
    assert not torch.equal(made, want)
    assert sqnr_db(want, made) > 25


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generate_of_hugging_face_runs_in_int8(name: str) -> None:
    library = pytest.importorskip("transformers", reason="it is no dependency of quantfx")
    model: Any = seeded(lambda: _model(library, name))
    auto: Any = quantfx.auto(model, calibration_batches=6, dynamic=True)
    compiled: Any = seeded(lambda: _model(library, name))
    compiled.compile(backend="quantfx_x86", dynamic=True)
    with torch.no_grad():
        want = model.generate(PROMPT, max_new_tokens=6, do_sample=False)
        assert torch.equal(auto.generate(PROMPT, max_new_tokens=6, do_sample=False), want)
        made = auto.generate(PROMPT, max_new_tokens=6, do_sample=False)
        assert auto.state == "int8"
        assert all(not each.reason for each in auto.report.graphs)
        for run in (made, compiled.generate(PROMPT, max_new_tokens=6, do_sample=False)):
            assert torch.equal(run[:, :7], want[:, :7])  # later ones follow from near ties


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_caches_of_hugging_face(name: str) -> None:
    library = pytest.importorskip("transformers", reason="it is no dependency of quantfx")
    model = seeded(lambda: _model(library, name))
    auto = quantfx.auto(model, calibration_batches=3, dynamic=True)
    with torch.no_grad():
        for _ in range(3):
            ours, theirs = (each(input_ids=PROMPT, use_cache=True) for each in (auto, model))
            for at in range(3):
                token = PROMPT[:, at : at + 1]
                ours, theirs = (
                    run(input_ids=token, past_key_values=last.past_key_values, use_cache=True)
                    for run, last in ((auto, ours), (model, theirs))
                )
                assert ours.past_key_values.get_seq_length() == 7 + at
                assert sqnr_db(theirs.logits, ours.logits) > 25
    assert auto.state == "int8"
    assert all(not each.reason for each in auto.report.graphs)


def _model(library: Any, name: str) -> nn.Module:
    if name == "gpt2":
        shape = library.GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=96, n_positions=64)
        model: nn.Module = library.GPT2LMHeadModel(shape)
        return model
    return importlib.import_module("transformers").LlamaForCausalLM(
        library.LlamaConfig(
            num_hidden_layers=2,
            hidden_size=64,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=96,
        )
    )

"""What grows in a cache: sizes, counts of tokens, and what no graph can let grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.decoder import Runner
from quantfx.decoding.growth import Growth, grown
from quantfx.passes.errors import CaptureError
from quantfx.tools.models.seeded import seeded
from tests.models.decoder import SmallDecoder
from tests.refusals import refused

PROMPT = torch.randint(0, 96, (1, 6), generator=torch.Generator().manual_seed(0))


class Counted(nn.Module):
    """Positions are learned, and the cache is a dict that counts the tokens."""

    def __init__(self, first: Any = 0) -> None:
        super().__init__()
        self.inner = SmallDecoder(layers=1)
        self.places = nn.Embedding(32, 64)
        self.first = first

    def forward(self, tokens: Tensor, cache: dict[str, Any] | None = None) -> tuple[Tensor, Any]:
        past, seen = (None, self.first) if cache is None else (cache["past"], cache["seen"])
        count = tokens.shape[1]
        x = self.inner.table(tokens) + self.places(torch.arange(count) + seen)
        x, *new = self.inner.layers[0](x, past)
        return self.inner.head(x), {
            "past": tuple(new),
            "seen": self.after(seen, count),
            "layers": 1,
        }

    def after(self, seen: Any, count: int) -> Any:
        return seen + count


@pytest.mark.parametrize("cache", [pytest.param("float", marks=pytest.mark.sweep), "int8"])
def test_a_count_of_tokens_is_an_input(tmp_path: Path, cache: Any) -> None:
    model = seeded(Counted)
    prompts = None if cache == "float" else [PROMPT]
    decoder = quantfx.quantize_decoder(model, PROMPT, cache=cache, prompts=prompts)
    decoder.decode.save(tmp_path / "decode.quantfx")
    loaded = quantfx.load(tmp_path / "decode.quantfx").module
    exact = Runner(decoder.prefill.quantized, decoder.decode.quantized)
    for length in (3, 6):
        tokens = PROMPT[:, :length]
        _, past = exact.prefill(tokens)
        for at in range(1, 4):
            tokens = torch.cat((tokens, PROMPT[:, at : at + 1]), 1)
            with torch.no_grad():
                expected = model(tokens)[0][:, -1:]
            (logits, _), (found, past) = (
                loaded(tokens[:, -1:], past),
                exact.decode(tokens[:, -1:], past),
            )
            torch.testing.assert_close(logits, found, rtol=1e-3, atol=1e-3)
            assert past["seen"] == length + at
            assert past["layers"] == 1
            # A position that is off by one changes the logits by as much as they are.
            assert (found - expected).norm() < 0.1 * expected.norm()


class Loops(Counted):
    """Counts in a loop, which a graph writes out."""

    def after(self, seen: Any, count: int) -> Any:
        return sum(1 for _ in range(seen)) + count


class Sums(Counted):
    """Counts in floats."""

    def after(self, seen: Any, count: int) -> Any:
        return float(seen + count)


class Lists(Counted):
    """Puts tokens into a list."""

    def after(self, seen: Any, count: int) -> Any:
        return [torch.ones(1)] * (count + (len(seen) if seen else 0))


@pytest.mark.parametrize(
    ("make", "site"),
    [(Loops, "cache['seen']"), (Sums, "cache['seen']"), (Lists, "cache")],
)
def test_what_a_graph_would_fix_is_named(make: Callable[[], nn.Module], site: str) -> None:
    fix = "torch.cat" if make is Lists else "torch.tensor(0)"
    with refused("cache-form", CaptureError, site=site, fix=fix):
        quantfx.quantize_decoder(seeded(make), PROMPT)


def test_what_is_not_taken_elsewhere_is_named(tmp_path: Path) -> None:
    result = quantfx.quantize_decoder(seeded(Counted), PROMPT).decode
    with refused("aot-number", site="cache['seen']", fix="wrapper='cpp'"):
        result.compile(wrapper="aot")
    pytest.importorskip("onnxscript")
    with refused("onnx-rejects", site="cache['seen']", fix="torch.tensor(0)"):
        result.export_onnx(tmp_path / "model.onnx")


def test_each_leaf_has_its_growth() -> None:
    _, found = grown(seeded(lambda: Counted(torch.tensor(0))), PROMPT)
    assert found == [Growth((2,)), Growth((2,)), Growth(), Growth()]
    _, [*_, counts, layers] = grown(seeded(Counted), PROMPT)
    assert (counts, layers) == (Growth(counts=True), Growth())

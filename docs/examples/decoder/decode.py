"""A decoder with a cache: int8 or int4 weights, float arithmetic, its own tokens.

docs/guides/decoders.md explains what this shows. It needs no network and no other package::

    python docs/examples/decoder/decode.py

It prints::

    weight-only: 0.27 of the bytes
      ... tokens/s: ...
    weight-only-4bit: 0.17 of the bytes
      ... tokens/s: ...
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional

import quantfx

Cache = list[tuple[Tensor, Tensor]]


class Layer(nn.Module):
    """Attention over all tokens so far, and two linears."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the rows, and keys and values of all tokens so far."""
        query, key, value = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in self.qkv(self.norm(x)).chunk(3, -1)
        )
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(x))), (key, value)


class Decoder(nn.Module):
    """``forward(tokens, cache=None)`` that returns logits and cache: what quantfx asks for."""

    def __init__(self, layers: int = 3, width: int = 128, vocabulary: int = 512) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, 4) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Return logits for each token, and the cache with them."""
        x, grown = self.table(tokens), []
        for place, layer in enumerate(self.layers):
            x, pair = layer(x, None if cache is None else cache[place])
            grown.append(pair)
        return self.head(x), grown


def main() -> None:
    """Decode with float, int8 and int4 weights."""
    torch.manual_seed(0)
    model = Decoder().eval()
    prompt = torch.randint(0, 512, (1, 8))
    for config in ("weight-only", "weight-only-4bit"):
        decoder = quantfx.quantize_decoder(model, prompt, config=config)
        report = decoder.decode.report
        print(f"{config}: {report.quantized_bytes / report.float_bytes:.2f} of the bytes")
        run = decoder.module  # or decoder.compile()
        start = time.perf_counter()
        tokens = run.generate(prompt, 32)
        print(
            f"  {32 / (time.perf_counter() - start):.0f} tokens/s: {tokens[0, 8:16].tolist()} ..."
        )


if __name__ == "__main__":
    main()

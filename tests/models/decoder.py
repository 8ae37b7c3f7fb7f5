"""A small decoder with a cache, and what Hugging Face's classes are called with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Cache = list[tuple[Tensor, Tensor]]


class Layer(nn.Module):
    """Attention over the cache, whose products are GPT-2's: a weight ``(in, out)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Parameter(torch.randn(width, 3 * width) / width**0.5)
        self.qkv_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows, and the keys and values of all tokens so far."""
        rows = self.norm(x)
        flat = torch.addmm(self.qkv_bias, rows.reshape(-1, rows.shape[-1]), self.qkv)
        query, key, value = (
            each.reshape(*each.shape[:2], self.heads, -1).transpose(1, 2)
            for each in flat.reshape(*x.shape[:2], -1).chunk(3, -1)
        )
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(x))), key, value


class SmallDecoder(nn.Module):
    """Embedding, layers, and a head that is tied to the embedding."""

    def __init__(self, layers: int = 2, width: int = 64, vocabulary: int = 96) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, 4) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Return logits for each token, and the cache with them."""
        x, grown = self.table(tokens), []
        for place, layer in enumerate(self.layers):
            x, key, value = layer(x, None if cache is None else cache[place])
            grown.append((key, value))
        return self.head(x), grown

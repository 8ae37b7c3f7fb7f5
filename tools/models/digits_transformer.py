"""A transformer for the digits: a row of pixels is a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS, BLOCKS = 32, 4, 2


class DigitsTransformer(nn.Module):
    """Rows embedded with a learned position, pre-norm blocks with dropout, mean, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.position = nn.Parameter(torch.randn(8, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 1, 8, 8)`` to logits ``(n, 10)``."""
        tokens = self.embed(x.squeeze(1)) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.classifier(self.norm(tokens).mean(1))
        return logits


class Block(nn.Module):
    """Self-attention and a perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.merge = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(n, 8, width)`` to tokens."""
        x = x + self.dropout(self.merge(self._attend(self.attention_norm(x))))
        widened = nn.functional.gelu(self.widen(self.mlp_norm(x)))
        result: Tensor = x + self.dropout(self.narrow(widened))
        return result

    def _attend(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return mixed.transpose(1, 2).flatten(2)

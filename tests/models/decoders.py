"""Tiny decoders whose masks and positions are computed as in the published code.

OPT: Zhang et al. 2022; GPT: Radford et al. 2018; LLaMA: Touvron et al. 2023. What matters here is the
arithmetic beside the activations, so norms and dropout are left out where they add nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded

VOCABULARY = 16


class OptPositions(nn.Embedding):
    """Positions count the tokens that the mask shows; the table has two rows in front of them."""

    def forward(self, mask: Tensor) -> Tensor:
        positions = (torch.cumsum(mask, dim=1).type_as(mask) * mask).long() - 1
        return F.embedding(positions + 2, self.weight)


class Opt(nn.Module):
    """Tokens -> logits; the mask that nobody passed is ones, and one of floats."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, hidden)
        self.positions = OptPositions(12, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.output = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 2 * hidden), nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, VOCABULARY, bias=False)

    def mask(self, mask: Tensor) -> Tensor:
        """Additive: what comes later and what is padding gets the smallest float."""
        length = mask.shape[1]
        lowest = torch.finfo(torch.float32).min
        causal = torch.full((length, length), lowest)
        at = torch.arange(length)
        causal.masked_fill_(at < (at + 1).view(length, 1), 0)
        hidden = 1.0 - mask[:, None, None, :].expand(-1, 1, length, length)
        return hidden.masked_fill(hidden.to(torch.bool), lowest)[:, 0] + causal

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(tokens.shape)
        x = self.tokens(tokens) + self.positions(mask)
        y = self.norm(x)
        query = self.query(y) * (x.shape[-1] ** -0.5)
        scores = torch.bmm(query, self.key(y).transpose(1, 2)) + self.mask(mask)
        scores = torch.max(scores, torch.tensor(torch.finfo(torch.float32).min))
        x = x + self.output(torch.bmm(F.softmax(scores, dim=-1), self.value(y)))
        x = x + self.down(F.relu(self.up(x)))
        logits: Tensor = self.head(x)
        return logits


class Gpt(nn.Module):
    """Tokens -> logits; the causal mask is a buffer of zeros and ones, multiplied in."""

    causal: Tensor

    def __init__(self, hidden: int = 8, heads: int = 1, context: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(VOCABULARY, hidden)
        self.positions = nn.Embedding(context, hidden)
        self.register_buffer("causal", torch.tril(torch.ones(context, context))[None, None])
        self.attention = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        ids = torch.arange(length, device=tokens.device)[None]
        x = self.tokens(tokens) + self.positions(ids)
        query, key, value = (
            each.view(batch, length, self.heads, -1).transpose(1, 2)
            for each in self.attention(x).split(x.shape[-1], dim=2)
        )
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        causal = self.causal[:, :, :length, :length]
        scores = scores * causal + -1e4 * (1 - causal)
        mixed = torch.matmul(F.softmax(scores, dim=-1), value)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        x = x + self.down(gelu(self.up(x)))
        return F.linear(x, self.tokens.weight)


def gelu(x: Tensor) -> Tensor:
    """The approximation with tanh, spelled out as in GPT's code."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


class RotaryAttention(nn.Module):
    """One head of LLaMA's attention: angles are a matrix product of frequencies and positions."""

    frequencies: Tensor

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, hidden)
        exponents = torch.arange(0, hidden, 2).float() / hidden
        self.register_buffer("frequencies", 10000.0**-exponents, persistent=False)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        positions = torch.arange(tokens.shape[1])[None, :].float()
        angles = torch.matmul(self.frequencies[:, None], positions).transpose(0, 1)
        angles = torch.cat([angles, angles], dim=-1)[None]
        query = rotated(self.query(x), angles.cos(), angles.sin())
        key = rotated(self.key(x), angles.cos(), angles.sin())
        weights = F.softmax(torch.matmul(query, key.transpose(-1, -2)), dim=-1)
        return torch.matmul(weights, self.value(x))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def tiny_opt() -> Opt:
    """Reads N x L integers."""
    return seeded(Opt)


def tiny_gpt(heads: int) -> Gpt:
    """Reads N x L integers, L at most 8."""
    return seeded(lambda: Gpt(heads=heads))


def rotary_attention() -> RotaryAttention:
    """Reads N x L integers."""
    return seeded(RotaryAttention)

"""BERT: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2018).

Attention is spelled out (matmul, softmax, matmul) as in the original code, or left to
``scaled_dot_product_attention``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded


@dataclass(frozen=True)
class BertConfig:
    """The sizes of BERT-base uncased."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    vocabulary: int = 30522
    positions: int = 512
    dropout: float = 0.1
    fused_attention: bool = False

    @property
    def intermediate(self) -> int:
        """Width between the two linears of a layer."""
        return 4 * self.hidden


class Embeddings(nn.Module):
    """The sum of what a token, its position and its segment (always the first) stand for."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.hidden)
        self.positions = nn.Embedding(config.positions, config.hidden)
        self.token_types = nn.Embedding(2, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, batch x length, to hidden states."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.token_types(torch.zeros_like(tokens))
        x = x + self.positions(positions)
        out: Tensor = self.dropout(self.norm(x))
        return out


class SelfAttention(nn.Module):
    """Attention of several heads, without the linear that mixes them again."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.fused = config.fused_attention
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def split(self, x: Tensor) -> Tensor:
        """Batch x length x hidden -> batch x heads x length x hidden/heads."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map hidden states to the heads' contexts side by side; ``mask`` is added to scores."""
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        if self.fused:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
            weights = self.dropout(torch.softmax(scores + mask, dim=-1))
            context = torch.matmul(weights, value)
        return context.transpose(1, 2).flatten(2)


class EncoderLayer(nn.Module):
    """Attention, then two linears with gelu between, each added to what it read and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_output = nn.Linear(config.hidden, config.hidden)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.intermediate = nn.Linear(config.hidden, config.intermediate)
        self.gelu = nn.GELU()
        self.output = nn.Linear(config.intermediate, config.hidden)
        self.output_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map hidden states to hidden states; ``mask`` is added to attention scores."""
        attended = self.dropout(self.attention_output(self.attention(x, mask)))
        x = self.attention_norm(attended + x)
        fed_forward = self.dropout(self.output(self.gelu(self.intermediate(x))))
        out: Tensor = self.output_norm(fed_forward + x)
        return out


class Bert(nn.Module):
    """Tokens and a 0/1 mask, both batch x length -> hidden states and the pooled first token."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.pooler = nn.Linear(config.hidden, config.hidden)
        self.tanh = nn.Tanh()
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden states, batch x length x hidden, and the pooled first token."""
        x: Tensor = self.embeddings(tokens)
        additive = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, additive)
        return x, self.tanh(self.pooler(x[:, 0]))


BERT_TINY = BertConfig(layers=2, hidden=64, heads=4, vocabulary=128, positions=32)


def bert(config: BertConfig | None = None) -> Bert:
    """BERT-base, or the one that ``config`` describes, in eval mode."""
    return seeded(lambda: Bert(config or BertConfig()))


def bert_inputs(
    config: BertConfig, batch: int = 1, length: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random tokens, and a mask that hides the last quarter of each row."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(config.vocabulary, (batch, length), generator=generator)
    mask = (torch.arange(length) < length - length // 4).long().repeat(batch, 1)
    return tokens, mask

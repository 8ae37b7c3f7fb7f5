"""Networks of embeddings and recurrent layers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class SpeakerEncoder(nn.Module):
    """Mel frames -> a unit vector for the voice: three LSTM layers and a linear.

    The shape of the d-vector network of Wan et al. 2018 (GE2E), as package resemblyzer has it.
    """

    def __init__(self, mels: int = 40, hidden: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(mels, hidden, layers, batch_first=True)
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, mels: Tensor) -> Tensor:
        """Return voices ``(n, hidden)`` of frames ``(n, frames, mels)``."""
        _, (hidden, _) = self.lstm(mels)
        raw = torch.relu(self.linear(hidden[-1]))
        return raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True)


def trained_speaker_encoder() -> SpeakerEncoder | None:
    """Return the encoder with real weights; None if their package is not installed."""
    found = importlib.util.find_spec("resemblyzer")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / "pretrained.pt"
    state: dict[str, Any] = torch.load(file, weights_only=False, map_location="cpu")["model_state"]
    model = SpeakerEncoder()
    own = model.state_dict().keys()  # the package's has the two scalars of its loss, too
    model.load_state_dict({key: value for key, value in state.items() if key in own})
    return model.eval()


class Recommender(nn.Module):
    """Items a user has seen, in a bag, and features -> a score for each of some products."""

    def __init__(self, items: int = 2000, width: int = 32, features: int = 12) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(items, width, mode="sum")
        self.dense = nn.Linear(features, width)
        self.head = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 20))

    def forward(self, seen: Tensor, offsets: Tensor, features: Tensor) -> Tensor:
        """Return scores ``(n, 20)``."""
        both = torch.cat([self.bag(seen, offsets), torch.relu(self.dense(features))], 1)
        scores: Tensor = self.head(both)
        return scores


class Tagger(nn.Module):
    """Words -> a tag for each: an embedding, a GRU in both directions, a linear."""

    def __init__(self, words: int = 500, width: int = 48, tags: int = 9) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.gru = nn.GRU(width, width, 2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(2 * width, tags)

    def forward(self, words: Tensor) -> Tensor:
        """Return scores ``(n, length, tags)`` for words ``(n, length)``."""
        states, _ = self.gru(self.words(words))
        scores: Tensor = self.tags(states)
        return scores

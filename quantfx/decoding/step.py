"""A decoder as a function of tokens and cache, whatever cache the model uses."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from torch import Tensor, nn

from quantfx.passes.errors import CaptureError

# Hugging Face's names of the argument, by version.
_NAMES = ("past_key_values", "cache")


class HuggingFaceStep(nn.Module):
    """``(tokens, keys and values) -> (logits, keys and values)`` of a Hugging Face model.

    The cache is a plain list of the keys and values of each layer in turn, so that neither graphs
    nor files hold an object of the library.

    Args:
        model: Takes ``input_ids`` and a ``DynamicCache``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        takes = inspect.signature(model.forward).parameters
        self._name = next((each for each in _NAMES if each in takes), _NAMES[0])

    def forward(self, tokens: Tensor, cache: list[Tensor] | None = None) -> tuple[Any, Any]:
        """Return the logits of ``tokens``, and the cache extended by them."""
        given = {} if cache is None else {self._name: self._cache(cache)}
        output = self.model(input_ids=tokens, use_cache=True, **given)
        layers: list[Any] = output.past_key_values.layers
        return output.logits, [each for layer in layers for each in (layer.keys, layer.values)]

    def _cache(self, tensors: list[Tensor]) -> Any:
        """Return a cache of the library that holds ``tensors`` themselves, not copies."""
        pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
        cache = importlib.import_module("transformers").DynamicCache(pairs)
        for layer, (keys, values) in zip(cache.layers, pairs, strict=True):
            layer.keys, layer.values = keys, values
        return cache


def step_of(model: nn.Module) -> nn.Module:
    """Return ``model``, or for Hugging Face a module that calls it as ``step(tokens, cache)``."""
    takes = inspect.signature(model.forward).parameters
    if "input_ids" in takes and "use_cache" in takes:
        return HuggingFaceStep(model).eval()
    if len(takes) >= 2:
        return model
    raise CaptureError(
        f"{type(model).__name__} takes {', '.join(takes)}, and a decoder takes tokens and a cache",
        rule="input-names",
        fix="give a module with forward(tokens, cache=None), which returns (logits, cache)",
    )
